package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"penstock/conformance/cluster/supervise"
)

// How long a run may take until Pods run, and until nothing is left of it.
const (
	untilPodsRun   = 3 * time.Minute
	untilNothingIs = time.Minute
)

// interrupt ends runs in the middle, when Pods are running, and looks for what they leave behind.
func interrupt(arguments []string) int {
	o, err := parseOptions(arguments)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return supervise.ExitUsage
	}
	if why := supervise.Missing(); why != "" {
		fmt.Fprintln(os.Stderr, why)
		return supervise.ExitCannotRun
	}
	runtime.LockOSThread() // a run dies with the thread that made it
	fmt.Println("== what an interrupted run leaves behind")
	failed := 0
	for _, by := range []struct {
		how    string
		signal syscall.Signal
		code   int
	}{{"Ctrl-C", syscall.SIGINT, supervise.ExitInterrupted}, {"SIGKILL", syscall.SIGKILL, -1}} {
		began := time.Now()
		told, err := interruptBy(o, by.signal, by.code)
		if err != nil {
			failed++
			fmt.Printf("FAILED  after %s nothing is left: %v\n", by.how, err)
			continue
		}
		fmt.Printf("passed  after %s nothing is left of %s (%.1f s)\n", by.how, told, time.Since(began).Seconds())
	}
	if failed > 0 {
		return 1
	}
	return 0
}

func interruptBy(o options, signal syscall.Signal, code int) (told string, err error) {
	traces, err := supervise.Before()
	if err != nil {
		return "", err
	}
	logs := filepath.Join(o.logs, "interrupted")
	if err := os.MkdirAll(logs, 0o755); err != nil {
		return "", err
	}
	// A file: who writes to a pipe that nobody reads any more ends by that alone.
	output, err := os.Create(filepath.Join(logs, "output"))
	if err != nil {
		return "", err
	}
	defer output.Close()
	run := exec.Command("/proc/self/exe", "stay", "--bin", o.binaries, "--data", o.data, "--repo", o.repo, "--penstock", o.penstock, "--logs", logs)
	run.Stdout, run.Stderr = output, output
	// A group of its own, as a terminal's foreground job has.
	run.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := run.Start(); err != nil {
		return "", err
	}
	exited := make(chan struct{})
	go func() { _ = run.Wait(); close(exited) }()
	if err := podsRun(output.Name(), exited); err != nil {
		_ = run.Process.Kill()
		return "", err
	}
	if err := traces.Follow(run.Process.Pid); err != nil {
		return "", err
	}
	processes, namespaces := traces.Counts()
	if processes < 10 || namespaces < 10 {
		return "", fmt.Errorf("that was no cluster: %d processes, %d namespaces", processes, namespaces)
	}
	if err := syscall.Kill(-run.Process.Pid, signal); err != nil {
		return "", err
	}
	if err := ended(run, exited, traces); err != nil {
		traces.End()
		return "", err
	}
	if got := run.ProcessState.ExitCode(); got != code {
		return "", fmt.Errorf("the run's exit code is %d, not %d", got, code)
	}
	return fmt.Sprintf("%d processes and %d namespaces", processes, namespaces), nil
}

// podsRun waits until a run has said of the first of its Pods that it is as it should be.
func podsRun(output string, exited <-chan struct{}) error {
	deadline := time.After(untilPodsRun)
	for {
		text, err := os.ReadFile(output)
		if err != nil {
			return err
		}
		if strings.Contains(string(text), "\npassed  ") {
			return nil
		}
		select {
		case <-exited:
			return fmt.Errorf("the run ended before a Pod ran:\n%s", text)
		case <-deadline:
			return fmt.Errorf("no Pod ran within %v:\n%s", untilPodsRun, text)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// ended waits until a run has ended, and nothing is left.
func ended(run *exec.Cmd, exited <-chan struct{}, traces *supervise.Traces) error {
	deadline := time.After(untilNothingIs)
	select {
	case <-exited:
	case <-deadline:
		_ = run.Process.Kill()
		return fmt.Errorf("it did not end within %v", untilNothingIs)
	}
	for {
		left := traces.Left()
		if left == nil {
			return nil
		}
		select {
		case <-deadline:
			return left
		case <-time.After(100 * time.Millisecond):
		}
	}
}
