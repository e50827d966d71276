package sandbox

import (
	"fmt"
	"os"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// Enter is the child's side of Start: it never returns, it becomes the program or exits with 128.
func Enter() {
	runtime.LockOSThread() // namespaces and capabilities belong to this thread
	spec, err := readSpec()
	if err == nil {
		err = enter(spec)
	}
	fmt.Fprintln(os.Stderr, "container could not start:", err)
	os.Exit(128)
}

func enter(spec Spec) error {
	if err := joinNetwork(spec.Netns); err != nil {
		return err
	}
	if err := unix.Sethostname([]byte(spec.Hostname)); err != nil {
		return fmt.Errorf("set host name: %w", err)
	}
	if err := buildRoot(spec); err != nil {
		return err
	}
	unix.Umask(0o022)
	if spec.WorkingDir != "" {
		if err := os.Chdir(spec.WorkingDir); err != nil {
			return fmt.Errorf("working directory: %w", err)
		}
	}
	if err := limit(spec); err != nil {
		return err
	}
	path := Resolve("/", spec.Argv[0], spec.Env, spec.Program)
	return fmt.Errorf("execute %s: %w", path, syscall.Exec(path, spec.Argv, spec.Env))
}

func joinNetwork(path string) error {
	if path == "" {
		return nil
	}
	ns, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open network namespace %s: %w", path, err)
	}
	defer unix.Close(ns)
	if err := unix.Setns(ns, unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("join network namespace %s: %w", path, err)
	}
	return nil
}

// limit gives up the capabilities and the identity that the Spec does not grant. A program of a
// user other than root keeps no capability when it is executed, as in a container runtime.
func limit(spec Spec) error {
	if !spec.Privileged {
		if err := keepOnly(spec.Capabilities); err != nil {
			return err
		}
	}
	for _, output := range []int{1, 2} { // a program may open its output anew, as /proc/1/fd/1
		if err := syscall.Fchown(output, spec.UID, -1); err != nil {
			return fmt.Errorf("own output: %w", err)
		}
	}
	if err := syscall.Setgroups(spec.Groups); err != nil {
		return fmt.Errorf("set groups: %w", err)
	}
	if err := syscall.Setgid(spec.GID); err != nil {
		return fmt.Errorf("set group %d: %w", spec.GID, err)
	}
	if err := syscall.Setuid(spec.UID); err != nil {
		return fmt.Errorf("set user %d: %w", spec.UID, err)
	}
	if spec.NoNewPrivileges {
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return fmt.Errorf("set no-new-privileges: %w", err)
		}
	}
	return nil
}
