package supervise

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/vishvananda/netlink"

	"penstock/conformance/cluster/agent"
)

// settings of the node's network namespace: packets go between Pods and Services (also those that
// the bridge would pass on by itself, so that a Service's answers find their way back), and
// thousands of short connections do not run out of ports.
var settings = map[string]string{
	"net.ipv4.ip_forward":                "1",
	"net.bridge.bridge-nf-call-iptables": "1",
	"net.ipv4.tcp_tw_reuse":              "1",
	"net.ipv4.ip_local_port_range":       "15000 65000",
}

// makeNetwork makes the one network of the cluster: a bridge that Pods are attached to, with the
// node's address, over which the addresses of Services are reached as well.
func makeNetwork() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return err
	}
	attributes := netlink.NewLinkAttrs()
	attributes.Name = agent.Bridge
	bridge := &netlink.Bridge{LinkAttrs: attributes}
	if err := netlink.LinkAdd(bridge); err != nil {
		return fmt.Errorf("add the bridge: %w (is the kernel's bridge module there?)", err)
	}
	address := &netlink.Addr{IPNet: &net.IPNet{IP: net.ParseIP(hostIP), Mask: net.CIDRMask(16, 32)}}
	if err := netlink.AddrAdd(bridge, address); err != nil {
		return err
	}
	if err := netlink.LinkSetUp(bridge); err != nil {
		return err
	}
	for _, text := range []string{serviceNet, balancerNet} {
		_, destination, err := net.ParseCIDR(text)
		if err != nil {
			return err
		}
		if err := netlink.RouteAdd(&netlink.Route{LinkIndex: bridge.Attrs().Index, Dst: destination, Scope: netlink.SCOPE_LINK}); err != nil {
			return fmt.Errorf("route %s: %w", text, err)
		}
	}
	for name, value := range settings {
		path := filepath.Join("/proc/sys", strings.ReplaceAll(name, ".", "/"))
		if err := os.WriteFile(path, []byte(value), 0o644); err != nil {
			return fmt.Errorf("kernel setting %s: %w", name, err)
		}
	}
	return nil
}
