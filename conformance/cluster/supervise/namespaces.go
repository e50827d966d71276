// Package supervise starts a whole cluster as processes of this machine and ends it without a
// trace. Everything runs in namespaces of its own for processes, network and mounts: when the first
// process of the process namespace ends, for whatever reason, the kernel ends all others, and with
// the last of them go the network, every Pod's network and every mount.
package supervise

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Exit codes besides 0 and 1.
const (
	ExitUsage       = 2
	ExitCannotRun   = 77  // this machine lacks what the cluster needs
	ExitInterrupted = 130 // somebody pressed Ctrl-C
)

// shutdownPatience is how long the inside may take to end by itself after a signal.
const shutdownPatience = 30 * time.Second

// Outside runs this program again, with the arguments, in new namespaces, and passes signals on.
// It calls started with the id of the first process inside.
func Outside(arguments []string, started func(pid int) error) int {
	if why := Missing(); why != "" {
		fmt.Fprintln(os.Stderr, why)
		return ExitCannotRun
	}
	runtime.LockOSThread() // the child dies with the thread that made it
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	cmd := exec.Command("/proc/self/exe", append([]string{"first"}, arguments...)...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWNET | syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC,
		Setsid:     true, // Ctrl-C comes to this process alone
		Pdeathsig:  syscall.SIGKILL,
	}
	if err := cmd.Start(); err != nil {
		fmt.Fprintf(os.Stderr, "cannot make namespaces: %v\n", err)
		return ExitCannotRun
	}
	if err := started(cmd.Process.Pid); err != nil {
		fmt.Fprintln(os.Stderr, err)
		_ = cmd.Process.Kill()
	}
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()
	interrupted := false
	var patience <-chan time.Time
	for {
		select {
		case <-signals:
			if interrupted = true; patience == nil {
				patience = time.After(shutdownPatience)
			}
			_ = cmd.Process.Signal(syscall.SIGTERM)
		case <-patience:
			fmt.Fprintf(os.Stderr, "the cluster did not end within %v: killed\n", shutdownPatience)
			_ = cmd.Process.Kill()
		case <-exited:
			if interrupted {
				return ExitInterrupted
			}
			return cmd.ProcessState.ExitCode()
		}
	}
}

// Missing says what this machine lacks, and what to do about it.
func Missing() string {
	if os.Geteuid() != 0 {
		return "cannot run: making network namespaces needs root; run it as root or in a container with CAP_SYS_ADMIN and CAP_NET_ADMIN"
	}
	probe := exec.Command("true")
	probe.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWNET}
	if err := probe.Run(); err != nil {
		return fmt.Sprintf("cannot run: this machine does not allow new namespaces (%v); CAP_SYS_ADMIN is needed", err)
	}
	for _, tool := range []string{"nft", "nsenter"} {
		if _, err := exec.LookPath(tool); err != nil {
			return fmt.Sprintf("cannot run: %s is missing; conformance/install.sh installs it", tool)
		}
	}
	return ""
}

// First is process 1 inside: it prepares the mounts, starts this program again with the arguments,
// passes signals on to it and collects whatever processes lose their parent. When it returns, all
// is over.
func First(arguments []string) int {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	if err := prepareMounts(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return ExitCannotRun
	}
	child, err := syscall.ForkExec("/proc/self/exe", append([]string{os.Args[0]}, arguments...), &syscall.ProcAttr{
		Env: os.Environ(), Files: []uintptr{0, 1, 2},
	})
	if err != nil {
		fmt.Fprintf(os.Stderr, "start %v: %v\n", arguments, err)
		return 1
	}
	go func() {
		for range signals {
			_ = syscall.Kill(child, syscall.SIGTERM) // gone already is as good
		}
	}()
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			return 1
		case pid == child && status.Signaled():
			return 128 + int(status.Signal())
		case pid == child:
			return status.ExitStatus()
		}
	}
}

// prepareMounts hides this machine's /run behind an empty one that holds all state of the cluster.
func prepareMounts() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("tmpfs", "/run", "tmpfs", 0, "mode=755"); err != nil {
		return fmt.Errorf("mount /run: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	return os.MkdirAll(StateDir, 0o755)
}
