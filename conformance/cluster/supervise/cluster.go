package supervise

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// StateDir holds everything the cluster writes, in memory, seen only from inside.
const StateDir = "/run/cluster"

// The cluster's addresses. There is no way from them to any other network.
const (
	hostIP      = "10.244.0.1"
	podNet      = "10.244.0.0/16"
	serviceNet  = "10.96.0.0/16"
	balancerNet = "10.240.0.0/16"
	apiPort     = "6443"
	nodeName    = "node-1"
)

// partDeadline bounds the start of each part. A cold machine has to read 130 MB of program first.
const partDeadline = 60 * time.Second

// Options say what the cluster is made of.
type Options struct {
	Binaries string   // directory with controlplane
	Programs string   // image table for the agent
	CRDs     []string // directories to apply
}

// Cluster is one that runs.
type Cluster struct {
	options Options
	parts   []*process
	Failed  chan error // a part ended by itself
}

// Start brings the cluster up; the caller stops it, also after an error.
func Start(ctx context.Context, options Options) (*Cluster, error) {
	c := &Cluster{options: options, Failed: make(chan error, 16)}
	if err := makeNetwork(); err != nil {
		return c, err
	}
	if err := writeCredentials(); err != nil {
		return c, err
	}
	steps := []func(context.Context) error{c.startEtcd, c.startAPIServer, c.startControllers, c.startProxy, c.startAgent, c.applyCRDs}
	for _, step := range steps {
		if err := step(ctx); err != nil {
			return c, err
		}
	}
	return c, nil
}

// Attach is a cluster that another process started, as seen from inside it: there is only Kubectl to it.
func Attach(options Options) *Cluster { return &Cluster{options: options} }

// start starts a part and waits until it is ready.
func (c *Cluster) start(ctx context.Context, name string, ready func(*process) bool, argv ...string) error {
	p, err := startProcess(StateDir, name, c.Failed, argv...)
	if err != nil {
		return err
	}
	c.parts = append(c.parts, p)
	deadline := time.After(partDeadline)
	for !ready(p) {
		select {
		case err := <-c.Failed:
			return err
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-deadline:
			return fmt.Errorf("%s was not ready within %v; the end of its log:\n%s", name, partDeadline, tail(p.log))
		case <-time.After(50 * time.Millisecond):
		}
	}
	return nil
}

func at(name string) string { return filepath.Join(StateDir, name) }

func (c *Cluster) controlplane() string { return filepath.Join(c.options.Binaries, "controlplane") }

func (c *Cluster) startEtcd(ctx context.Context) error {
	return c.start(ctx, "etcd", func(p *process) bool { return p.said("etcd ready") }, c.controlplane(), "etcd", at("etcd"))
}

func (c *Cluster) startAPIServer(ctx context.Context) error {
	return c.start(ctx, "apiserver", func(*process) bool { return c.healthy() }, c.controlplane(), "apiserver",
		"--etcd-servers=http://127.0.0.1:2379", "--cert-dir="+at("certs"), "--secure-port="+apiPort,
		"--bind-address="+hostIP, "--advertise-address="+hostIP, "--service-cluster-ip-range="+serviceNet,
		"--service-account-key-file="+at("sa.pub"), "--service-account-signing-key-file="+at("sa.key"),
		"--service-account-issuer=https://kubernetes.default.svc", "--token-auth-file="+at("tokens.csv"),
		"--authorization-mode=RBAC", "--allow-privileged", "--kubelet-preferred-address-types=InternalIP",
		"--audit-policy-file="+at("audit-policy.yaml"), "--audit-log-path="+AuditLog,
		"--enable-priority-and-fairness=false", "--profiling=false")
}

func (c *Cluster) healthy() bool {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	answer, err := getReady(ctx)
	return err == nil && answer == "ok"
}

// controllers are those of kube-controller-manager that act on what the suites and gateways create.
var controllers = []string{
	"deployment-controller", "replicaset-controller", "job-controller", "endpointslice-controller", "namespace-controller",
	"serviceaccount-controller", "garbage-collector-controller", "pod-garbage-collector-controller",
	"root-ca-certificate-publisher-controller", "horizontal-pod-autoscaler-controller", "disruption-controller",
	"clusterrole-aggregation-controller",
}

func (c *Cluster) startControllers(ctx context.Context) error {
	return c.start(ctx, "controller-manager", started, c.controlplane(), "controller-manager",
		"--kubeconfig="+kubeconfig("controller-manager"), "--leader-elect=false", "--kube-api-qps=250", "--kube-api-burst=500",
		"--service-account-private-key-file="+at("sa.key"), "--root-ca-file="+at("certs/apiserver.crt"),
		"--controllers="+strings.Join(controllers, ","), "--bind-address=127.0.0.1", "--profiling=false")
}

// proxySettings make kube-proxy act at once and leave the kernel's connection tracking as it is.
var proxySettings = fmt.Sprintf(`apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
hostnameOverride: %s
clusterCIDR: %s
bindAddress: 0.0.0.0
healthzBindAddress: 127.0.0.1:10256
metricsBindAddress: 127.0.0.1:10249
clientConnection: {kubeconfig: %s, qps: 250, burst: 500}
nftables: {minSyncPeriod: 100ms, syncPeriod: 30s}
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
`, nodeName, podNet, kubeconfig("kube-proxy"))

func (c *Cluster) startProxy(ctx context.Context) error {
	if err := os.WriteFile(at("kube-proxy.yaml"), []byte(proxySettings), 0o644); err != nil {
		return err
	}
	return c.start(ctx, "kube-proxy", started, c.controlplane(), "proxy", "--config="+at("kube-proxy.yaml"))
}

// started is for parts that show in time by what they do whether they work.
func started(*process) bool { return true }

func (c *Cluster) startAgent(ctx context.Context) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	return c.start(ctx, "agent", func(p *process) bool { return p.said("agent ready") }, self, "agent",
		"--kubeconfig="+kubeconfig("agent"), "--state="+at("agent"), "--node="+nodeName, "--host-ip="+hostIP, "--programs="+c.options.Programs)
}

func (c *Cluster) applyCRDs(ctx context.Context) error {
	if len(c.options.CRDs) == 0 {
		return nil
	}
	var arguments []string
	for _, dir := range c.options.CRDs {
		arguments = append(arguments, "-f", dir)
	}
	if _, err := c.Kubectl(ctx, "", append([]string{"apply", "--server-side"}, arguments...)...); err != nil {
		return fmt.Errorf("apply CRDs: %w", err)
	}
	if _, err := c.Kubectl(ctx, "", "wait", "--for=condition=Established", "--timeout=60s", "crd", "--all"); err != nil {
		return fmt.Errorf("wait for CRDs: %w", err)
	}
	return nil
}

// kubectlDeadline bounds every single command.
const kubectlDeadline = 2 * time.Minute

// Kubectl runs a command as the administrator and returns what it printed.
func (c *Cluster) Kubectl(ctx context.Context, input string, arguments ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, kubectlDeadline)
	defer cancel()
	cmd := exec.CommandContext(ctx, c.controlplane(), append([]string{"kubectl", "--kubeconfig=" + kubeconfig("admin")}, arguments...)...)
	cmd.Stdin = strings.NewReader(input)
	output, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		err = fmt.Errorf("kubectl %s: %w\n%s", strings.Join(arguments, " "), err, strings.TrimSpace(string(exit.Stderr)))
	}
	return string(output), err
}

// StopAPIServer ends the API server at once, as a machine that fails does.
func (c *Cluster) StopAPIServer() { c.end("apiserver") }

// end ends a part at once.
func (c *Cluster) end(name string) {
	for i, part := range c.parts {
		if part.name == name {
			c.parts = slices.Delete(c.parts, i, i+1)
			part.kill()
			return
		}
	}
}

// StartAPIServer starts it again after StopAPIServer, with what etcd kept, and anew what turns Pods into
// the endpoints of Services. The watches of these wait up to 30 s before they try again, until when a
// rollout would go on while connections are still sent to who has gone. A controller-manager that elects
// its leader ends by itself when it cannot renew its lease.
func (c *Cluster) StartAPIServer(ctx context.Context) error {
	if err := c.startAPIServer(ctx); err != nil {
		return err
	}
	c.end("controller-manager")
	c.end("kube-proxy")
	if err := c.startControllers(ctx); err != nil {
		return err
	}
	return c.startProxy(ctx)
}

// Stop ends all parts, those that depend on others first.
func (c *Cluster) Stop() {
	for i := len(c.parts) - 1; i >= 0; i-- {
		grace := time.Second
		if c.parts[i].name == "agent" {
			grace = 5 * time.Second // it ends every container
		}
		c.parts[i].stop(grace)
	}
}
