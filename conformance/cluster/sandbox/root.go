package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// What of the machine a container sees, read-only, where it exists.
var (
	systemDirs = []string{"/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"}
	systemEtc  = []string{"passwd", "group", "nsswitch.conf", "ssl", "ca-certificates", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "alternatives", "localtime"}
	devices    = []string{"null", "zero", "full", "random", "urandom", "tty"}
)

// buildRoot makes the container's root directory on spec.Root and moves into it.
func buildRoot(spec Spec) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("tmpfs", spec.Root, "tmpfs", 0, "mode=755"); err != nil {
		return fmt.Errorf("mount the root on %s: %w", spec.Root, err)
	}
	steps := []func(Spec) error{mountSystem, mountKernel, mountDevices, mountProgram, mountVolumes, enterRoot}
	for _, step := range steps {
		if err := step(spec); err != nil {
			return err
		}
	}
	return nil
}

func mountSystem(spec Spec) error {
	for _, dir := range systemDirs {
		if link, err := os.Readlink(dir); err == nil {
			if err := os.Symlink(link, filepath.Join(spec.Root, dir)); err != nil {
				return err
			}
		} else if err := bindIfPresent(dir, filepath.Join(spec.Root, dir)); err != nil {
			return err
		}
	}
	for _, name := range systemEtc {
		if err := bindIfPresent(filepath.Join("/etc", name), filepath.Join(spec.Root, "etc", name)); err != nil {
			return err
		}
	}
	for dir, mode := range map[string]os.FileMode{"tmp": 0o1777, "var/tmp": 0o1777, "run": 0o755, "root": 0o700} {
		path := filepath.Join(spec.Root, dir)
		if err := os.MkdirAll(path, 0o755); err != nil {
			return err
		}
		if err := unix.Chmod(path, uint32(mode)); err != nil {
			return err
		}
	}
	return nil
}

func bindIfPresent(source, target string) error {
	if _, err := os.Stat(source); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return bind(Mount{Source: source, Target: target, ReadOnly: true})
}

func mountKernel(spec Spec) error {
	proc, sys := filepath.Join(spec.Root, "proc"), filepath.Join(spec.Root, "sys")
	for _, dir := range []string{proc, sys} {
		if err := os.MkdirAll(dir, 0o555); err != nil {
			return err
		}
	}
	flags := uintptr(unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC)
	if err := unix.Mount("proc", proc, "proc", flags, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	if err := unix.Mount("sysfs", sys, "sysfs", flags|unix.MS_RDONLY, ""); err != nil {
		return fmt.Errorf("mount /sys: %w", err)
	}
	if spec.Privileged {
		return nil
	}
	settings := filepath.Join(proc, "sys")
	return bind(Mount{Source: settings, Target: settings, ReadOnly: true})
}

func mountDevices(spec Spec) error {
	dev := filepath.Join(spec.Root, "dev")
	for _, name := range devices {
		if err := bind(Mount{Source: filepath.Join("/dev", name), Target: filepath.Join(dev, name)}); err != nil {
			return err
		}
	}
	for name, target := range map[string]string{"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2"} {
		if err := os.Symlink(target, filepath.Join(dev, name)); err != nil {
			return err
		}
	}
	shared := filepath.Join(dev, "shm")
	if err := os.MkdirAll(shared, 0o755); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", shared, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=1777,size=64m"); err != nil {
		return fmt.Errorf("mount /dev/shm: %w", err)
	}
	return nil
}

func mountProgram(spec Spec) error {
	if spec.Program == "" {
		return nil
	}
	target := filepath.Join(spec.Root, ImageDir, filepath.Base(spec.Program))
	return bind(Mount{Source: spec.Program, Target: target, ReadOnly: true})
}

func mountVolumes(spec Spec) error {
	for _, mount := range spec.Mounts {
		mount.Target = filepath.Join(spec.Root, filepath.Clean("/"+mount.Target))
		if err := bind(mount); err != nil {
			return err
		}
	}
	return nil
}

// bind shows source at target, making target as a file or a directory as source is.
func bind(mount Mount) error {
	info, err := os.Stat(mount.Source)
	if err != nil {
		return fmt.Errorf("mount: %w", err)
	}
	if err := makeTarget(mount.Target, info.IsDir()); err != nil {
		return fmt.Errorf("mount: %w", err)
	}
	if err := unix.Mount(mount.Source, mount.Target, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("mount %s at %s: %w", mount.Source, mount.Target, err)
	}
	if !mount.ReadOnly {
		return nil
	}
	if err := remountReadOnly(mount.Target); err != nil {
		return fmt.Errorf("make %s read-only: %w", mount.Target, err)
	}
	return nil
}

func makeTarget(target string, dir bool) error {
	if _, err := os.Lstat(target); err == nil {
		return nil
	}
	if dir {
		return os.MkdirAll(target, 0o755)
	}
	if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
		return err
	}
	return os.WriteFile(target, nil, 0o644)
}

func remountReadOnly(target string) error {
	attr := &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
	return unix.MountSetattr(unix.AT_FDCWD, target, unix.AT_RECURSIVE, attr)
}

func enterRoot(spec Spec) error {
	if spec.ReadOnlyRoot {
		// Not recursively: volumes and /dev/shm stay writable.
		if err := unix.MountSetattr(unix.AT_FDCWD, spec.Root, 0, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}); err != nil {
			return fmt.Errorf("make the root read-only: %w", err)
		}
	}
	if err := os.Chdir(spec.Root); err != nil {
		return err
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivot root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("leave the old root: %w", err)
	}
	return os.Chdir("/")
}

// Resolve finds the executable that name means in a container whose root is at root: as the PATH
// says, and where the image that we do not have would have had it, the program that stands for it.
func Resolve(root, name string, env []string, program string) string {
	present := func(path string) bool {
		info, err := os.Stat(filepath.Join(root, path))
		return err == nil && !info.IsDir() && info.Mode()&0o111 != 0
	}
	if strings.Contains(name, "/") {
		if program == "" || present(name) {
			return name
		}
		return filepath.Join(ImageDir, filepath.Base(program))
	}
	for _, dir := range strings.Split(variable(env, "PATH"), ":") {
		if path := filepath.Join("/", dir, name); present(path) {
			return path
		}
	}
	if program == "" {
		return name
	}
	return filepath.Join(ImageDir, filepath.Base(program))
}

func variable(env []string, name string) string {
	value := ""
	for _, e := range env {
		if v, ok := strings.CutPrefix(e, name+"="); ok {
			value = v
		}
	}
	return value
}
