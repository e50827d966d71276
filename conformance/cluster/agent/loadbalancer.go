package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net/netip"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// A Service of type LoadBalancer gets an address of its own: one that it asks for, if that is among
// the reserved ones, else the next of the pool. kube-proxy then sends what comes to the address to
// the Service's Pods; nothing else is needed on a single node.
var (
	poolNet       = netip.MustParsePrefix("10.240.0.0/24")
	firstInPool   = netip.MustParseAddr("10.240.0.10")
	firstReserved = netip.MustParseAddr("10.240.0.200") // to 10.240.0.254, only for who asks
)

// errInUse: the address may become free.
var errInUse = errors.New("belongs to another Service")

// retryInUse is how long a Service waits for an address that another one has.
const retryInUse = 500 * time.Millisecond

// balancer remembers which Service has which address. An address is given again only after all
// others: what still leads to a Service that has gone must not lead to its successor.
type balancer struct {
	mu   sync.Mutex
	next netip.Addr
	held map[types.UID]netip.Addr
}

func newBalancer() *balancer { return &balancer{next: firstInPool, held: map[types.UID]netip.Addr{}} }

// assign returns the Service's address, the same as before if it has one.
func (b *balancer) assign(service types.UID, wanted string) (netip.Addr, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	taken := map[netip.Addr]types.UID{}
	for uid, address := range b.held {
		taken[address] = uid
	}
	if wanted != "" {
		address, err := netip.ParseAddr(wanted)
		if err != nil || !poolNet.Contains(address) {
			return netip.Addr{}, fmt.Errorf("address %q is not in %v", wanted, poolNet)
		}
		if owner, ok := taken[address]; ok && owner != service {
			return netip.Addr{}, fmt.Errorf("address %v %w", address, errInUse)
		}
		b.held[service] = address
		return address, nil
	}
	if address, ok := b.held[service]; ok {
		return address, nil
	}
	for range firstReserved.As4()[3] - firstInPool.As4()[3] {
		address := b.next
		if b.next = address.Next(); !b.next.Less(firstReserved) {
			b.next = firstInPool
		}
		if _, ok := taken[address]; !ok {
			b.held[service] = address
			return address, nil
		}
	}
	return netip.Addr{}, fmt.Errorf("all addresses of %v are in use", poolNet)
}

func (b *balancer) release(service types.UID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.held, service)
}

func (a *Agent) serviceDeleted(s *corev1.Service) { a.balancer.release(s.UID) }

// syncService gives a Service the address that it shall have, or takes it away.
func (a *Agent) syncService(s *corev1.Service) {
	var wanted corev1.LoadBalancerStatus
	if s.Spec.Type == corev1.ServiceTypeLoadBalancer && s.DeletionTimestamp == nil && s.Spec.LoadBalancerClass == nil {
		address, err := a.balancer.assign(s.UID, s.Spec.LoadBalancerIP)
		if err != nil {
			log.Printf("Service %s/%s stays without an address: %v", s.Namespace, s.Name, err)
			if errors.Is(err, errInUse) {
				time.AfterFunc(retryInUse, func() { a.syncAgain(s.Namespace, s.Name) })
			}
		} else {
			mode := corev1.LoadBalancerIPModeVIP
			wanted.Ingress = []corev1.LoadBalancerIngress{{IP: address.String(), IPMode: &mode}}
		}
	} else {
		a.balancer.release(s.UID)
	}
	if s.Spec.LoadBalancerClass != nil || sameIngress(wanted.Ingress, s.Status.LoadBalancer.Ingress) {
		return
	}
	go a.writeIngress(s, wanted)
}

// syncAgain looks at a Service once more; one that has gone, or cannot be read any more, is let be.
func (a *Agent) syncAgain(namespace, name string) {
	ctx, cancel := context.WithTimeout(context.Background(), requestDeadline)
	defer cancel()
	if s, err := a.client.CoreV1().Services(namespace).Get(ctx, name, metav1.GetOptions{}); err == nil {
		a.syncService(s)
	}
}

func sameIngress(a, b []corev1.LoadBalancerIngress) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i].IP != b[i].IP {
			return false
		}
	}
	return true
}

func (a *Agent) writeIngress(s *corev1.Service, wanted corev1.LoadBalancerStatus) {
	ctx, cancel := context.WithTimeout(context.Background(), requestDeadline)
	defer cancel()
	ingress := wanted.Ingress
	if ingress == nil {
		ingress = []corev1.LoadBalancerIngress{}
	}
	patch, err := json.Marshal(map[string]any{"status": map[string]any{"loadBalancer": map[string]any{"ingress": ingress}}})
	if err == nil {
		_, err = a.client.CoreV1().Services(s.Namespace).Patch(ctx, s.Name, types.MergePatchType, patch, metav1.PatchOptions{}, "status")
	}
	if err != nil {
		log.Printf("Service %s/%s: write its address: %v", s.Namespace, s.Name, err)
	}
}
