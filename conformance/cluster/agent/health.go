package agent

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	health "google.golang.org/grpc/health/grpc_health_v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"penstock/conformance/cluster/sandbox"
)

// Until a container is ready it is asked this often, whatever its probe's period and initial delay:
// a test need not wait for them. Liveness probes keep their own pace.
const eagerPeriod = 250 * time.Millisecond

// A container without a readiness probe counts as ready when its first TCP port accepts, or after
// this time: a kubelet would not wait, but it starts containers later.
const portPatience = 3 * time.Second

// streak turns the outcomes of a probe into a verdict: so many equal ones in a row.
type streak struct {
	successes, failures int // thresholds
	last                bool
	length              int
}

// add counts one outcome; decided says whether the verdict is that outcome now.
func (s *streak) add(ok bool) (decided bool) {
	if s.length > 0 && s.last != ok {
		s.length = 0
	}
	s.last = ok
	s.length++
	if ok {
		return s.length >= s.successes
	}
	return s.length >= s.failures
}

func newStreak(probe *corev1.Probe) *streak {
	return &streak{successes: max(1, int(probe.SuccessThreshold)), failures: max(1, int(probe.FailureThreshold))}
}

// watchHealth runs the container's probes while its process lives. A verdict that it must be
// restarted goes to sick.
func (c *container) watchHealth(ctx context.Context, pid int, env []string, sick chan<- string) {
	if probe := c.spec.StartupProbe; probe != nil && !c.startup(ctx, probe, pid, env, sick) {
		return
	}
	c.set(func() { c.started = true })
	c.markBegun()
	if probe := c.spec.LivenessProbe; probe != nil {
		go c.liveness(ctx, probe, pid, env, sick)
	}
	c.readiness(ctx, pid, env)
}

func (c *container) markBegun() {
	select {
	case <-c.begun:
	default:
		close(c.begun)
	}
}

func (c *container) startup(ctx context.Context, probe *corev1.Probe, pid int, env []string, sick chan<- string) bool {
	// Asked more often than said, it has as much time as said.
	patience := time.Duration(probe.InitialDelaySeconds)*time.Second + period(probe)*time.Duration(max(1, probe.FailureThreshold))
	for began := time.Now(); ctx.Err() == nil; {
		err := c.probe(ctx, probe, pid, env)
		if err == nil {
			return true
		}
		if time.Since(began) > patience {
			tell(sick, "its startup probe failed: "+err.Error())
			return false
		}
		pause(ctx, eagerPeriod)
	}
	return false
}

func (c *container) liveness(ctx context.Context, probe *corev1.Probe, pid int, env []string, sick chan<- string) {
	verdict := newStreak(probe)
	for pause(ctx, time.Duration(probe.InitialDelaySeconds)*time.Second); ctx.Err() == nil; pause(ctx, period(probe)) {
		err := c.probe(ctx, probe, pid, env)
		if verdict.add(err == nil) && err != nil && ctx.Err() == nil {
			tell(sick, "its liveness probe failed: "+err.Error())
			return
		}
	}
}

func (c *container) readiness(ctx context.Context, pid int, env []string) {
	probe := c.spec.ReadinessProbe
	if probe == nil {
		c.waitForPort(ctx)
		if ctx.Err() == nil {
			c.set(func() { c.ready = true })
		}
		return
	}
	verdict := newStreak(probe)
	for ready := false; ctx.Err() == nil; {
		ok := c.probe(ctx, probe, pid, env) == nil
		if verdict.add(ok) && ok != ready && ctx.Err() == nil {
			ready = ok
			c.set(func() { c.ready = ok })
		}
		if ready {
			pause(ctx, period(probe))
		} else {
			pause(ctx, min(eagerPeriod, period(probe)))
		}
	}
}

func (c *container) waitForPort(ctx context.Context) {
	for _, p := range c.spec.Ports {
		if p.Protocol != corev1.ProtocolTCP {
			continue
		}
		for began := time.Now(); ctx.Err() == nil && time.Since(began) < portPatience; pause(ctx, 50*time.Millisecond) {
			if dial(ctx, c.pod.ip, int(p.ContainerPort)) == nil {
				return
			}
		}
		return
	}
}

func tell(sick chan<- string, why string) {
	select {
	case sick <- why:
	default:
	}
}

func period(probe *corev1.Probe) time.Duration {
	return time.Duration(max(1, probe.PeriodSeconds)) * time.Second
}

func pause(ctx context.Context, length time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(length):
	}
}

// probe asks once; nil means healthy.
func (c *container) probe(ctx context.Context, probe *corev1.Probe, pid int, env []string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(max(1, probe.TimeoutSeconds))*time.Second)
	defer cancel()
	if probe.GRPC != nil {
		return askHealth(ctx, net.JoinHostPort(c.pod.ip, strconv.Itoa(int(probe.GRPC.Port))), first("", probe.GRPC.Service))
	}
	return c.act(ctx, pid, env, probe.Exec, probe.HTTPGet, probe.TCPSocket)
}

// hook runs a lifecycle hook to its end.
func (c *container) hook(ctx context.Context, pid int, env []string, hook *corev1.LifecycleHandler) error {
	if hook.Sleep != nil {
		pause(ctx, time.Duration(hook.Sleep.Seconds)*time.Second)
		return nil
	}
	return c.act(ctx, pid, env, hook.Exec, hook.HTTPGet, hook.TCPSocket)
}

func (c *container) act(ctx context.Context, pid int, env []string, command *corev1.ExecAction, get *corev1.HTTPGetAction, socket *corev1.TCPSocketAction) error {
	switch {
	case command != nil:
		return c.execute(ctx, pid, env, command.Command)
	case get != nil:
		host := c.pod.ip
		if get.Host != "" {
			host = get.Host
		}
		return httpGet(ctx, host, c.port(get.Port), get)
	case socket != nil:
		return dial(ctx, c.pod.ip, c.port(socket.Port))
	}
	return nil
}

// execute runs a command inside the container, as its user.
func (c *container) execute(ctx context.Context, pid int, env, command []string) error {
	program, _ := c.pod.agent.Programs.For(c.spec.Image)
	path := sandbox.Resolve(fmt.Sprintf("/proc/%d/root", pid), command[0], env, program.Path)
	var identity sandbox.Spec
	if err := secure(&identity, &c.pod.object.Spec, c.spec, program.UID); err != nil {
		return err
	}
	arguments := []string{"--target", strconv.Itoa(pid), "--mount", "--pid", "--net", "--uts", "--ipc",
		"--setuid", strconv.Itoa(identity.UID), "--setgid", strconv.Itoa(identity.GID), "--", path}
	cmd := exec.CommandContext(ctx, "nsenter", append(arguments, command[1:]...)...)
	cmd.Env, cmd.WaitDelay = env, time.Second
	output, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(command, " "), err, strings.TrimSpace(string(output[:min(len(output), 1000)])))
	}
	return nil
}

// port finds the number of a port that may be given by name.
func (c *container) port(wanted intstr.IntOrString) int {
	for _, p := range c.spec.Ports {
		if wanted.Type == intstr.String && p.Name == wanted.StrVal {
			return int(p.ContainerPort)
		}
	}
	return wanted.IntValue()
}

func dial(ctx context.Context, ip string, port int) error {
	connection, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "tcp", net.JoinHostPort(ip, strconv.Itoa(port)))
	if err == nil {
		connection.Close()
	}
	return err
}

// probeClient follows no redirect (a redirect counts as healthy) and believes any certificate.
var probeClient = &http.Client{
	Transport:     &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

func httpGet(ctx context.Context, host string, port int, get *corev1.HTTPGetAction) error {
	scheme := "http"
	if get.Scheme == corev1.URISchemeHTTPS {
		scheme = "https"
	}
	url := scheme + "://" + net.JoinHostPort(host, strconv.Itoa(port)) + "/" + strings.TrimPrefix(get.Path, "/")
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	request.Header.Set("User-Agent", "kube-probe/1.36")
	for _, h := range get.HTTPHeaders {
		request.Header.Add(h.Name, h.Value)
		if strings.EqualFold(h.Name, "Host") {
			request.Host = h.Value
		}
	}
	response, err := probeClient.Do(request)
	if err != nil {
		return err
	}
	response.Body.Close()
	if response.StatusCode < 200 || response.StatusCode >= 400 {
		return fmt.Errorf("GET %s: status %d", url, response.StatusCode)
	}
	return nil
}

func askHealth(ctx context.Context, address, service string) error {
	connection, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer connection.Close()
	answer, err := health.NewHealthClient(connection).Check(ctx, &health.HealthCheckRequest{Service: service})
	if err != nil {
		return err
	}
	if answer.Status != health.HealthCheckResponse_SERVING {
		return errors.New("gRPC health is " + answer.Status.String())
	}
	return nil
}
