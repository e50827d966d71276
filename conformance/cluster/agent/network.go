package agent

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// Bridge is the network that all Pods and the node are on.
const Bridge = "pods"

// safeSysctls may be set by any Pod, as on a kubelet with its default settings.
var safeSysctls = map[string]bool{
	"kernel.shm_rmid_forced": true, "net.ipv4.ip_local_port_range": true, "net.ipv4.tcp_syncookies": true,
	"net.ipv4.ping_group_range": true, "net.ipv4.ip_unprivileged_port_start": true, "net.ipv4.ip_local_reserved_ports": true,
	"net.ipv4.tcp_keepalive_time": true, "net.ipv4.tcp_fin_timeout": true, "net.ipv4.tcp_keepalive_intvl": true,
	"net.ipv4.tcp_keepalive_probes": true, "net.ipv4.tcp_rmem": true, "net.ipv4.tcp_wmem": true,
}

// addresses hands out Pod addresses 10.244.1.0 to 10.244.250.249, each again only when all others
// have been used: what still talks to a Pod that has gone must not reach its successor.
type addresses struct {
	mu   sync.Mutex
	next int
	used map[int]bool
}

const podAddresses = 250 * 250

func newAddresses() *addresses { return &addresses{used: map[int]bool{}} }

func (a *addresses) take() (number int, ip string, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for range podAddresses {
		n := a.next
		a.next = (a.next + 1) % podAddresses
		if !a.used[n] {
			a.used[n] = true
			return n, fmt.Sprintf("10.244.%d.%d", 1+n/250, n%250), nil
		}
	}
	return 0, "", fmt.Errorf("all %d Pod addresses are in use", podAddresses)
}

func (a *addresses) release(number int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.used, number)
}

// connect makes the network namespace name with the address ip on the bridge and the given sysctls.
func connect(name, ip, gateway string, sysctls map[string]string) error {
	done := make(chan error, 1)
	go func() {
		// The thread moves into the new namespace and is thrown away with this goroutine.
		runtime.LockOSThread()
		done <- connectThread(name, ip, gateway, sysctls)
	}()
	if err := <-done; err != nil {
		return fmt.Errorf("network of %s: %w", ip, err)
	}
	return nil
}

func connectThread(name, ip, gateway string, sysctls map[string]string) error {
	host, err := netns.Get()
	if err != nil {
		return err
	}
	defer host.Close()
	outside, err := netlink.NewHandleAt(host)
	if err != nil {
		return err
	}
	defer outside.Close()
	bridge, err := outside.LinkByName(Bridge)
	if err != nil {
		return fmt.Errorf("bridge %s: %w", Bridge, err)
	}
	inside, err := netns.NewNamed(name)
	if err != nil {
		return err
	}
	defer inside.Close()
	attributes := netlink.NewLinkAttrs()
	attributes.Name, attributes.MasterIndex = "v"+name, bridge.Attrs().Index
	pair := &netlink.Veth{LinkAttrs: attributes, PeerName: "eth0", PeerNamespace: netlink.NsFd(inside)}
	if err := outside.LinkAdd(pair); err != nil {
		return fmt.Errorf("add veth: %w", err)
	}
	if err := outside.LinkSetUp(pair); err != nil {
		return err
	}
	if err := configure(ip, gateway); err != nil {
		return err
	}
	return setSysctls(sysctls)
}

// configure runs inside the new namespace.
func configure(ip, gateway string) error {
	for _, name := range []string{"lo", "eth0"} {
		link, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		if err := netlink.LinkSetUp(link); err != nil {
			return err
		}
	}
	eth0, err := netlink.LinkByName("eth0")
	if err != nil {
		return err
	}
	address := &netlink.Addr{IPNet: &net.IPNet{IP: net.ParseIP(ip), Mask: net.CIDRMask(16, 32)}}
	if err := netlink.AddrAdd(eth0, address); err != nil {
		return fmt.Errorf("address: %w", err)
	}
	return netlink.RouteAdd(&netlink.Route{LinkIndex: eth0.Attrs().Index, Gw: net.ParseIP(gateway)})
}

// setSysctls writes settings of the calling thread's namespace; /proc/sys shows those of the writer.
func setSysctls(sysctls map[string]string) error {
	for name, value := range sysctls {
		path := filepath.Join("/proc/sys", strings.ReplaceAll(name, ".", "/"))
		if err := os.WriteFile(path, []byte(value), 0o644); err != nil {
			return fmt.Errorf("sysctl %s: %w", name, err)
		}
	}
	return nil
}

// disconnect removes the namespace; its interfaces go with it once the last process in it has.
func disconnect(name string) error { return netns.DeleteNamed(name) }
