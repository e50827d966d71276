package supervise

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"time"
)

// process is one part of the cluster. Its output is in NAME.log.
type process struct {
	name, log string
	cmd       *exec.Cmd
	exited    chan struct{}
	killed    atomic.Bool // it was told to
}

// startProcess starts a part; if it ends before it was told to, failed gets the reason.
func startProcess(dir, name string, failed chan<- error, argv ...string) (*process, error) {
	p := &process{name: name, log: filepath.Join(dir, name+".log"), exited: make(chan struct{})}
	// Appended: a part that is started again must not take away what it said before.
	out, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	p.cmd = exec.Command(argv[0], argv[1:]...)
	p.cmd.Dir, p.cmd.Stdout, p.cmd.Stderr = dir, out, out
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		_ = p.cmd.Wait()
		close(p.exited)
		if p.killed.Load() {
			return
		}
		select {
		case failed <- fmt.Errorf("%s ended (%v); the end of its log:\n%s", name, p.cmd.ProcessState, tail(p.log)):
		default:
		}
	}()
	return p, nil
}

// stop ends the part: SIGTERM, and SIGKILL when it does not end within grace.
func (p *process) stop(grace time.Duration) {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended already
	select {
	case <-p.exited:
		return
	case <-time.After(grace):
	}
	_ = p.cmd.Process.Kill()
	<-p.exited
}

// kill ends the part at once.
func (p *process) kill() {
	p.killed.Store(true)
	_ = p.cmd.Process.Kill()
	<-p.exited
}

// tail is the end of a log, for a message.
func tail(path string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	lines := bytes.Split(bytes.TrimSpace(data), []byte("\n"))
	return string(bytes.Join(lines[max(0, len(lines)-15):], []byte("\n")))
}

// said says whether the part's log contains text.
func (p *process) said(text string) bool {
	data, err := os.ReadFile(p.log)
	return err == nil && bytes.Contains(data, []byte(text))
}
