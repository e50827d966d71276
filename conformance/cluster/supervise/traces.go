package supervise

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// Traces are what a cluster consists of, as this machine sees it, and what was there before.
type Traces struct {
	processes  map[string]string // "PID START" of each process, and its command line
	namespaces map[string]bool   // not those of this process
	mounts     []string
	links      []string
	latest     int // start of the youngest process when it was last looked
}

// kinds of namespaces that a cluster makes.
var namespaceKinds = []string{"pid", "net", "mnt", "uts", "ipc"}

// Before are the mounts and network links of this machine, to find out what a run that begins now adds.
func Before() (*Traces, error) {
	t := &Traces{processes: map[string]string{}, namespaces: map[string]bool{}}
	var err error
	t.mounts, t.links, err = surroundings()
	return t, err
}

func surroundings() (mounts, links []string, err error) {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, nil, err
	}
	interfaces, err := net.Interfaces()
	for _, one := range interfaces {
		links = append(links, one.Name)
	}
	return strings.Split(strings.TrimSpace(string(text)), "\n"), links, err
}

// Follow adds all that descends from a process, as it is now.
func (t *Traces) Follow(pid int) error {
	own := namespacesOf("self")
	all, err := everybody()
	if err != nil {
		return err
	}
	for _, p := range all {
		t.latest = max(t.latest, p.start)
		if !p.descends(pid, all) {
			continue
		}
		t.processes[p.key()] = p.command
		for _, namespace := range namespacesOf(strconv.Itoa(p.pid)) {
			if !slices.Contains(own, namespace) {
				t.namespaces[namespace] = true
			}
		}
	}
	return nil
}

// Counts are the processes and namespaces that are followed.
func (t *Traces) Counts() (processes, namespaces int) { return len(t.processes), len(t.namespaces) }

// End ends what is left of the processes that are followed.
func (t *Traces) End() {
	all, _ := everybody() // it is not the last word on them
	for _, p := range all {
		if _, followed := t.processes[p.key()]; followed {
			_ = syscall.Kill(p.pid, syscall.SIGKILL)
		}
	}
}

// Left says an error if any of it is still there.
func (t *Traces) Left() error {
	all, err := everybody()
	if err != nil {
		return err
	}
	var left []string
	for _, p := range all {
		_, followed := t.processes[p.key()]
		// The number of a namespace that has gone is soon another's.
		inside := p.start <= t.latest && slices.ContainsFunc(namespacesOf(strconv.Itoa(p.pid)), func(namespace string) bool { return t.namespaces[namespace] })
		if followed || inside {
			left = append(left, fmt.Sprintf("process %d: %s", p.pid, p.command))
		}
	}
	mounts, links, err := surroundings()
	if err != nil {
		return err
	}
	for _, found := range []struct {
		what        string
		now, before []string
	}{{"mount", mounts, t.mounts}, {"network link", links, t.links}} {
		for _, one := range found.now {
			if !slices.Contains(found.before, one) {
				left = append(left, found.what+" "+one)
			}
		}
	}
	if len(left) > 0 {
		return fmt.Errorf("left behind:\n  %s", strings.Join(left, "\n  "))
	}
	return nil
}

// somebody is a process of this machine.
type somebody struct {
	pid, parent, start int
	command            string
}

// key tells it from a later process with the same number.
func (p somebody) key() string { return fmt.Sprint(p.pid, " ", p.start) }

func (p somebody) descends(from int, all map[int]somebody) bool {
	for known := true; known; p, known = all[p.parent] {
		if p.pid == from {
			return true
		}
	}
	return false
}

func everybody() (map[int]somebody, error) {
	found, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	all := map[int]somebody{}
	for _, path := range found {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		// The name, in parentheses, may have spaces.
		begin, end := strings.IndexByte(string(text), '('), strings.LastIndexByte(string(text), ')')
		if begin < 0 || end < begin {
			continue
		}
		fields := strings.Fields(string(text[end+1:]))
		pid, err := strconv.Atoi(strings.TrimSpace(string(text[:begin])))
		if err != nil || len(fields) < 20 || fields[0] == "Z" {
			continue // who is dead only waits for its parent to look
		}
		parent, wrong := strconv.Atoi(fields[1])
		start, unknown := strconv.Atoi(fields[19])
		if wrong == nil && unknown == nil {
			all[pid] = somebody{pid, parent, start, string(text[begin+1 : end])}
		}
	}
	return all, nil
}

// namespacesOf are those that a process is in, as far as this one may see.
func namespacesOf(pid string) []string {
	var all []string
	for _, kind := range namespaceKinds {
		if name, err := os.Readlink("/proc/" + pid + "/ns/" + kind); err == nil {
			all = append(all, name)
		}
	}
	return all
}
