// Package sandbox runs one container's program as a process with namespaces and a root directory of
// its own, as a container runtime would. The agent describes the container in a Spec and starts this
// binary with the argument "container"; Enter then builds what the Spec asks for and becomes the
// program. There are no images: the root is an empty memory file system with the machine's programs
// and libraries, read-only, and the one program that stands for the image.
package sandbox

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
)

// ImageDir is where the program that stands for the image appears inside.
const ImageDir = "/image"

// Spec is all that the process needs to know; it travels as JSON over a pipe.
type Spec struct {
	Netns           string // path of the Pod's network namespace, empty for the host's
	Hostname        string
	Root            string // an empty directory to build the root on
	Program         string // what stands for the image, a path outside
	ReadOnlyRoot    bool
	Privileged      bool
	Mounts          []Mount // in order
	UID, GID        int
	Groups          []int
	Capabilities    []string // without CAP_, what remains in the bounding set
	NoNewPrivileges bool
	WorkingDir      string
	Argv, Env       []string
}

// Mount shows a file or directory of the outside inside.
type Mount struct {
	Source, Target string
	ReadOnly       bool
}

// specFd is the descriptor on which the child reads its Spec.
const specFd = 3

// Start starts the container; its output goes to out. The process is the first of a process
// namespace, so whatever it leaves behind ends with it.
func Start(spec Spec, out *os.File) (*exec.Cmd, error) {
	read, write, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer write.Close()
	cmd := exec.Command("/proc/self/exe", "container")
	cmd.Env = []string{}
	cmd.Stdout, cmd.Stderr = out, out
	cmd.ExtraFiles = []*os.File{read}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Setsid:     true,
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC,
	}
	err = cmd.Start()
	read.Close()
	if err != nil {
		return nil, fmt.Errorf("start container process: %w", err)
	}
	if err := json.NewEncoder(write).Encode(spec); err != nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		return nil, fmt.Errorf("hand over the container's description: %w", err)
	}
	return cmd, nil
}

func readSpec() (Spec, error) {
	var spec Spec
	pipe := os.NewFile(specFd, "spec")
	defer pipe.Close()
	data, err := io.ReadAll(pipe)
	if err == nil {
		err = json.Unmarshal(data, &spec)
	}
	return spec, err
}
