package agent

import (
	"context"
	"fmt"
	"log"
	"net"
	"net/netip"
	"strings"

	"golang.org/x/net/dns/dnsmessage"
	corev1 "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// Domain is the cluster's DNS domain.
const Domain = "cluster.local"

// answerSeconds is how long an answer may be kept: tests change Services under a reader's feet.
const answerSeconds = 1

// catalogue is what names are looked up in.
type catalogue interface {
	service(namespace, name string) *corev1.Service
	endpoints(namespace, service string) []*discovery.EndpointSlice
}

// serveNames answers DNS for Services on the node's address until ctx ends. Nothing outside the
// cluster has a name here: there is no way out.
func (a *Agent) serveNames(ctx context.Context) error {
	socket, err := net.ListenPacket("udp", net.JoinHostPort(a.HostIP, "53"))
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, func() { socket.Close() })
	go ServeDNS(ctx, socket, func(name string, kind dnsmessage.Type) ([]dnsmessage.ResourceBody, bool) {
		return lookUp(a, name, kind)
	})
	return nil
}

// ServeDNS answers every question by what answer knows: the records, and whether the name exists.
func ServeDNS(ctx context.Context, socket net.PacketConn, answer func(string, dnsmessage.Type) ([]dnsmessage.ResourceBody, bool)) {
	buffer := make([]byte, 1500)
	for ctx.Err() == nil {
		n, from, err := socket.ReadFrom(buffer)
		if err != nil {
			if ctx.Err() == nil {
				log.Printf("DNS: %v", err)
			}
			return
		}
		if reply, err := respond(buffer[:n], answer); err == nil {
			_, _ = socket.WriteTo(reply, from) // an asker that has gone needs no answer
		}
	}
}

func respond(query []byte, answer func(string, dnsmessage.Type) ([]dnsmessage.ResourceBody, bool)) ([]byte, error) {
	var message dnsmessage.Message
	if err := message.Unpack(query); err != nil {
		return nil, err
	}
	if len(message.Questions) != 1 {
		return nil, fmt.Errorf("%d questions", len(message.Questions))
	}
	q := message.Questions[0]
	reply := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: message.ID, Response: true, Authoritative: true, RecursionDesired: message.RecursionDesired, RecursionAvailable: true},
		Questions: message.Questions,
	}
	records, exists := answer(strings.ToLower(q.Name.String()), q.Type)
	if !exists {
		reply.RCode = dnsmessage.RCodeNameError
	}
	for _, body := range records {
		header := dnsmessage.ResourceHeader{Name: q.Name, Class: dnsmessage.ClassINET, TTL: answerSeconds}
		reply.Answers = append(reply.Answers, dnsmessage.Resource{Header: header, Body: body})
	}
	return reply.Pack()
}

// lookUp knows SERVICE.NAMESPACE.svc.DOMAIN., HOST.SERVICE... for Pods with a name of their own, and
// _PORT._PROTOCOL.SERVICE... of type SRV.
func lookUp(from catalogue, name string, kind dnsmessage.Type) ([]dnsmessage.ResourceBody, bool) {
	rest, ok := strings.CutSuffix(name, ".svc."+Domain+".")
	if !ok {
		return nil, false
	}
	part := strings.Split(rest, ".")
	if len(part) < 2 {
		return nil, false
	}
	namespace, service := part[len(part)-1], part[len(part)-2]
	s := from.service(namespace, service)
	if s == nil {
		return nil, false
	}
	switch before := part[:len(part)-2]; {
	case len(before) == 0 && s.Spec.Type == corev1.ServiceTypeExternalName:
		target, err := dnsmessage.NewName(strings.TrimSuffix(s.Spec.ExternalName, ".") + ".")
		return []dnsmessage.ResourceBody{&dnsmessage.CNAMEResource{CNAME: target}}, err == nil
	case len(before) == 0:
		return addressRecords(serviceAddresses(from, s, ""), kind), true
	case len(before) == 1:
		found := serviceAddresses(from, s, before[0])
		return addressRecords(found, kind), len(found) > 0
	case len(before) == 2 && strings.HasPrefix(before[0], "_"):
		return portRecords(s, before[0][1:], strings.TrimPrefix(before[1], "_"), kind), true
	}
	return nil, false
}

// serviceAddresses are the Service's own address or, for a headless one, those of its Pods (of the
// one named host, if given).
func serviceAddresses(from catalogue, s *corev1.Service, host string) []netip.Addr {
	var found []netip.Addr
	add := func(text string) {
		if address, err := netip.ParseAddr(text); err == nil {
			found = append(found, address)
		}
	}
	if s.Spec.ClusterIP != corev1.ClusterIPNone {
		if host == "" {
			add(s.Spec.ClusterIP)
		}
		return found
	}
	for _, slice := range from.endpoints(s.Namespace, s.Name) {
		for _, e := range slice.Endpoints {
			ready := first(true, e.Conditions.Ready) || s.Spec.PublishNotReadyAddresses
			if ready && len(e.Addresses) > 0 && (host == "" || first("", e.Hostname) == host) {
				add(e.Addresses[0])
			}
		}
	}
	return found
}

func addressRecords(addresses []netip.Addr, kind dnsmessage.Type) []dnsmessage.ResourceBody {
	var records []dnsmessage.ResourceBody
	for _, address := range addresses {
		switch {
		case address.Is4() && kind == dnsmessage.TypeA:
			records = append(records, &dnsmessage.AResource{A: address.As4()})
		case address.Is6() && kind == dnsmessage.TypeAAAA:
			records = append(records, &dnsmessage.AAAAResource{AAAA: address.As16()})
		}
	}
	return records
}

func portRecords(s *corev1.Service, port, protocol string, kind dnsmessage.Type) []dnsmessage.ResourceBody {
	if kind != dnsmessage.TypeSRV {
		return nil
	}
	target, err := dnsmessage.NewName(s.Name + "." + s.Namespace + ".svc." + Domain + ".")
	if err != nil {
		return nil
	}
	for _, p := range s.Spec.Ports {
		if p.Name == port && strings.EqualFold(string(p.Protocol), protocol) {
			return []dnsmessage.ResourceBody{&dnsmessage.SRVResource{Weight: 100, Port: uint16(p.Port), Target: target}}
		}
	}
	return nil
}

func (a *Agent) service(namespace, name string) *corev1.Service {
	s, err := a.informers.Core().V1().Services().Lister().Services(namespace).Get(name)
	if err != nil {
		return nil
	}
	return s
}

func (a *Agent) endpoints(namespace, service string) []*discovery.EndpointSlice {
	selector := labels.SelectorFromSet(labels.Set{discovery.LabelServiceName: service})
	slices, err := a.informers.Discovery().V1().EndpointSlices().Lister().EndpointSlices(namespace).List(selector)
	if err != nil {
		return nil
	}
	return slices
}
