package agent

import (
	"context"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"penstock/conformance/cluster/sandbox"
)

// A container that ends is started again at once, then after waits that double: shorter than a
// kubelet's (10 s to 5 min), so that a test need not wait for them.
const (
	firstBackOff = 500 * time.Millisecond
	lastBackOff  = 10 * time.Second
)

// configRetry is how often a container that cannot be configured is tried again.
const configRetry = time.Second

// container is one container of a Pod. What mu of the Pod guards is what its status shows.
type container struct {
	pod  *pod
	spec *corev1.Container
	init bool

	state, last    corev1.ContainerState
	ready, started bool
	restarts       int32
	over           bool // ended and not to be started again

	begun chan struct{} // closed when it has started for the first time
	log   *logFile
}

func newContainer(p *pod, spec *corev1.Container, init bool) *container {
	c := &container{pod: p, spec: spec, init: init, begun: make(chan struct{})}
	c.state.Waiting = &corev1.ContainerStateWaiting{Reason: "ContainerCreating"}
	if init {
		c.state.Waiting.Reason = "PodInitializing"
	}
	c.log = newLogFile(logPath(p.agent.State, p.namespace, p.name, spec.Name))
	return c
}

func (c *container) sidecar() bool {
	return c.init && c.spec.RestartPolicy != nil && *c.spec.RestartPolicy == corev1.ContainerRestartPolicyAlways
}

func (c *container) set(change func()) {
	c.pod.mu.Lock()
	change()
	c.pod.mu.Unlock()
	c.pod.report()
}

func (c *container) succeeded() bool {
	c.pod.mu.Lock()
	defer c.pod.mu.Unlock()
	return c.state.Terminated != nil && c.state.Terminated.ExitCode == 0
}

// waitStarted waits until a sidecar has started.
func (c *container) waitStarted(ctx context.Context) bool {
	select {
	case <-c.begun:
		return true
	case <-ctx.Done():
		return false
	}
}

// run runs the container, again as its restart policy says, until it is over or ctx ends.
func (c *container) run(ctx context.Context) {
	defer c.log.close()
	defer c.set(func() { c.over, c.ready = true, false })
	wait := time.Duration(0)
	for ctx.Err() == nil {
		began := time.Now()
		code, ok := c.once(ctx)
		if !ok || ctx.Err() != nil || !c.restartsAfter(code) {
			return
		}
		if time.Since(began) > time.Minute {
			wait = 0
		}
		if wait > 0 {
			c.set(func() {
				c.last = c.state
				c.state = corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff", Message: fmt.Sprintf("starts again in %v; exit code was %d", wait, code)}}
			})
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		wait = min(max(2*wait, firstBackOff), lastBackOff)
		c.set(func() {
			if c.state.Terminated != nil {
				c.last = c.state
			}
			c.restarts++
		})
	}
}

func (c *container) restartsAfter(code int32) bool {
	policy := c.pod.object.Spec.RestartPolicy
	switch {
	case c.sidecar():
		return true
	case c.init:
		return code != 0 && policy != corev1.RestartPolicyNever
	}
	return policy == corev1.RestartPolicyAlways || policy == corev1.RestartPolicyOnFailure && code != 0
}

// once runs the container's process to its end; false when ctx ended before it could start.
func (c *container) once(ctx context.Context) (code int32, ok bool) {
	process, env, ok := c.start(ctx)
	if !ok {
		return 0, false
	}
	exited := make(chan struct{})
	go func() { _ = process.Wait(); close(exited) }()
	alive, dead := context.WithCancel(context.Background())
	defer dead()
	sick := make(chan string, 1)
	go c.watchHealth(alive, process.Process.Pid, env, sick)
	began := metav1.Now()
	c.set(func() {
		c.state = corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: began}}
		c.started = c.spec.StartupProbe == nil
	})
	if c.spec.Lifecycle != nil && c.spec.Lifecycle.PostStart != nil {
		if err := c.hook(ctx, process.Process.Pid, env, c.spec.Lifecycle.PostStart); err != nil {
			sick <- "its postStart hook failed: " + err.Error()
		}
	}
	select {
	case <-exited:
	case <-ctx.Done():
		dead()
		c.terminate(process.Process, env, exited, c.pod.deadline())
	case why := <-sick:
		log.Printf("Pod %s/%s: container %s is restarted: %s", c.pod.namespace, c.pod.name, c.spec.Name, why)
		dead()
		c.terminate(process.Process, env, exited, time.Time{})
	}
	code = exitCode(process.ProcessState)
	c.set(func() {
		reason := "Completed"
		if code != 0 {
			reason = "Error"
		}
		c.ready, c.started = false, false
		c.state = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: code, Reason: reason, StartedAt: began, FinishedAt: metav1.Now()}}
	})
	return code, true
}

func exitCode(state *os.ProcessState) int32 {
	if status, ok := state.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return 128 + int32(status.Signal())
	}
	return int32(state.ExitCode())
}

// start starts the process, as soon as all that its configuration refers to exists.
func (c *container) start(ctx context.Context) (*exec.Cmd, []string, bool) {
	for {
		process, env, err := c.tryStart()
		if err == nil {
			return process, env, true
		}
		c.set(func() {
			c.state = corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CreateContainerConfigError", Message: err.Error()}}
		})
		select {
		case <-ctx.Done():
			return nil, nil, false
		case <-time.After(configRetry):
		}
	}
}

func (c *container) tryStart() (*exec.Cmd, []string, error) {
	p := c.pod
	services, err := p.agent.informers.Core().V1().Services().Lister().List(labels.Everything())
	if err != nil {
		return nil, nil, err
	}
	facts := p.facts()
	env, err := environment(facts, c.spec, services, p)
	if err != nil {
		return nil, nil, err
	}
	program, ok := p.agent.Programs.For(c.spec.Image)
	if !ok {
		log.Printf("Pod %s/%s: no program stands for image %s: container %s only sleeps", p.namespace, p.name, c.spec.Image, c.spec.Name)
	}
	spec := sandbox.Spec{
		Netns: p.netns, Hostname: facts.hostname(), Program: program.Path, Env: env, WorkingDir: c.spec.WorkingDir,
		Root: filepath.Join(p.dir, "root-"+c.spec.Name),
	}
	if err := secure(&spec, &p.object.Spec, c.spec, program.UID); err != nil {
		return nil, nil, err
	}
	if spec.Mounts, err = p.mounts(c.spec, env); err != nil {
		return nil, nil, err
	}
	if ok {
		for _, word := range Argv(program, c.spec.Command, c.spec.Args) {
			spec.Argv = append(spec.Argv, expand(word, env))
		}
	} else if spec.Program, err = os.Executable(); err == nil {
		spec.Argv = []string{filepath.Join(sandbox.ImageDir, filepath.Base(spec.Program)), "sleep"}
	}
	if err := os.MkdirAll(spec.Root, 0o755); err != nil {
		return nil, nil, err
	}
	out, err := c.log.begin()
	if err != nil {
		return nil, nil, err
	}
	process, err := sandbox.Start(spec, out)
	out.Close()
	return process, env, err
}

// terminate ends the process as a kubelet does: the preStop hook, SIGTERM, and SIGKILL at the
// deadline, but never sooner than two seconds after SIGTERM unless there is no grace at all. The
// zero deadline is the Pod's own grace from now.
func (c *container) terminate(process *os.Process, env []string, exited <-chan struct{}, deadline time.Time) {
	if deadline.IsZero() {
		deadline = time.Now().Add(time.Duration(first(30, c.pod.object.Spec.TerminationGracePeriodSeconds)) * time.Second)
	}
	forced := !time.Now().Before(deadline)
	if hook := c.spec.Lifecycle; hook != nil && hook.PreStop != nil && !forced {
		ctx, cancel := context.WithDeadline(context.Background(), deadline)
		go func() { // a process that is gone needs no hook any more
			select {
			case <-exited:
				cancel()
			case <-ctx.Done():
			}
		}()
		if err := c.hook(ctx, process.Pid, env, hook.PreStop); err != nil && ctx.Err() == nil {
			log.Printf("Pod %s/%s: preStop hook of container %s: %v", c.pod.namespace, c.pod.name, c.spec.Name, err)
		}
		cancel()
		if least := time.Now().Add(2 * time.Second); deadline.Before(least) {
			deadline = least
		}
	}
	if !forced {
		_ = process.Signal(syscall.SIGTERM) // it may have ended by itself
		for time.Now().Before(deadline) {
			select {
			case <-exited:
				return
			case <-time.After(50 * time.Millisecond):
			}
			if sooner := c.pod.deadline(); !sooner.IsZero() && sooner.Before(deadline) {
				deadline = sooner
			}
		}
	}
	_ = process.Kill()
	<-exited
}
