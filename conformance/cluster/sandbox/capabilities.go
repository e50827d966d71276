package sandbox

import (
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// capabilities are named by their number (capability.h).
var capabilities = []string{
	"CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID",
	"SETPCAP", "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW",
	"IPC_LOCK", "IPC_OWNER", "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT",
	"SYS_ADMIN", "SYS_BOOT", "SYS_NICE", "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD",
	"LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP", "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG",
	"WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF", "CHECKPOINT_RESTORE",
}

// DefaultCapabilities are what container runtimes grant when nobody says otherwise.
var DefaultCapabilities = []string{
	"CHOWN", "DAC_OVERRIDE", "FSETID", "FOWNER", "MKNOD", "NET_RAW", "SETGID", "SETUID", "SETFCAP",
	"SETPCAP", "NET_BIND_SERVICE", "SYS_CHROOT", "KILL", "AUDIT_WRITE",
}

// Capabilities applies a container's add and drop lists to the default set.
func Capabilities(add, drop []string) []string {
	var kept []string
	for _, name := range capabilities {
		granted := slices.Contains(DefaultCapabilities, name)
		if has(drop, name) {
			granted = false
		}
		if slices.ContainsFunc(add, func(a string) bool { return plain(a) == name || plain(a) == "ALL" && !hasExactly(drop, name) }) {
			granted = true
		}
		if granted {
			kept = append(kept, name)
		}
	}
	return kept
}

func has(list []string, name string) bool { return hasExactly(list, name) || hasExactly(list, "ALL") }

func hasExactly(list []string, name string) bool {
	return slices.ContainsFunc(list, func(one string) bool { return plain(one) == name })
}

func plain(name string) string { return strings.TrimPrefix(strings.ToUpper(name), "CAP_") }

// keepOnly drops every other capability from this thread's bounding set: a program executed by
// root gets what is left of it, anybody else's gets none.
func keepOnly(names []string) error {
	for number := 0; ; number++ {
		if held, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, uintptr(number), 0, 0, 0); err != nil {
			return nil // beyond the last one that this kernel knows
		} else if held == 0 || number < len(capabilities) && slices.Contains(names, capabilities[number]) {
			continue
		}
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(number), 0, 0, 0); err != nil {
			return fmt.Errorf("drop capability %d: %w", number, err)
		}
	}
}
