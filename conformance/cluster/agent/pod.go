package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"penstock/conformance/cluster/audit"
)

// lastGrace is what containers get when the whole cluster ends.
const lastGrace = 2 * time.Second

// refreshPeriod is how often tokens are looked at; Secrets and ConfigMaps are refreshed at once.
const refreshPeriod = 30 * time.Second

// AddressLog is the file of the agent's state in which each Pod is named with its address, which is never
// another's.
const AddressLog = "addresses.log"

// pod is one Pod on this node, from its binding until nothing of it is left.
type pod struct {
	agent           *Agent
	namespace, name string
	object          *corev1.Pod // as it was bound to this node; a specification never changes
	dir             string
	netns, ip       string
	number          int
	tokens          map[string]token // of the goroutine that makes volumes

	ctx     context.Context // ends when the Pod shall stop
	end     context.CancelFunc
	done    chan struct{} // closed when nothing of it is left
	changed chan struct{} // its status is to be published
	stale   chan struct{} // its volumes are to be refreshed

	mu         sync.Mutex
	latest     *corev1.Pod // its newest labels, annotations and conditions
	killAt     time.Time   // set with the end of ctx
	containers []*container
	refused    string // why it cannot run here at all
	leaving    bool   // the agent itself ends: the API server keeps the object
}

func newPod(a *Agent, object *corev1.Pod) *pod {
	p := &pod{
		agent: a, namespace: object.Namespace, name: object.Name, object: object, latest: object,
		dir: filepath.Join(a.State, "pods", string(object.UID)), tokens: map[string]token{},
		done: make(chan struct{}), changed: make(chan struct{}, 1), stale: make(chan struct{}, 1),
	}
	p.ctx, p.end = context.WithCancel(context.Background())
	for i := range object.Spec.InitContainers {
		p.containers = append(p.containers, newContainer(p, &object.Spec.InitContainers[i], true))
	}
	for i := range object.Spec.Containers {
		p.containers = append(p.containers, newContainer(p, &object.Spec.Containers[i], false))
	}
	return p
}

// update takes a newer version of the object.
func (p *pod) update(object *corev1.Pod) {
	p.mu.Lock()
	relabelled := fmt.Sprint(p.latest.Labels, p.latest.Annotations) != fmt.Sprint(object.Labels, object.Annotations)
	p.latest = object
	p.mu.Unlock()
	if relabelled {
		p.wantRefresh()
	}
	if object.DeletionTimestamp != nil {
		p.stop(time.Duration(first(int64(0), object.DeletionGracePeriodSeconds)) * time.Second)
	}
}

// stop ends the Pod; a later call can only shorten the grace.
func (p *pod) stop(grace time.Duration) {
	at := time.Now().Add(grace)
	p.mu.Lock()
	if p.killAt.IsZero() || at.Before(p.killAt) {
		p.killAt = at
	}
	p.mu.Unlock()
	p.end()
}

func (p *pod) deadline() time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.killAt
}

func (p *pod) wantRefresh() {
	select {
	case p.stale <- struct{}{}:
	default:
	}
}

func (p *pod) facts() podFacts {
	p.mu.Lock()
	defer p.mu.Unlock()
	return podFacts{object: p.latest, ip: p.ip, hostIP: p.agent.HostIP, node: p.agent.Node, programs: p.agent.Programs}
}

// run is the Pod's whole life.
func (p *pod) run() {
	published := make(chan struct{})
	publish, enough := context.WithCancel(context.Background())
	go func() { defer close(published); p.publishAll(publish) }()
	if err := p.connect(); err != nil {
		log.Printf("Pod %s/%s cannot run: %v", p.namespace, p.name, err)
		p.mu.Lock()
		p.refused = err.Error()
		p.mu.Unlock()
		p.report()
	} else if p.waitForVolumes() {
		go p.keepVolumes()
		p.runContainers()
	}
	p.report()
	<-p.ctx.Done()
	enough()
	<-published
	p.cleanUp()
	if !p.leavesWithAll() {
		p.agent.remove(p.object, p.leavesWithAll)
	}
	// Not sooner: a Pod that the agent does not know and that shall go is removed at once.
	p.agent.mu.Lock()
	delete(p.agent.pods, p.object.UID)
	p.agent.mu.Unlock()
	close(p.done)
}

// leavesWithAll tells whether the whole cluster ends.
func (p *pod) leavesWithAll() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.leaving
}

// connect gives the Pod its directory and its network.
func (p *pod) connect() error {
	sysctls, err := allowedSysctls(&p.object.Spec)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(p.dir, 0o755); err != nil {
		return err
	}
	ip := p.agent.HostIP
	if !p.object.Spec.HostNetwork {
		if p.number, ip, err = p.agent.addresses.take(); err != nil {
			return err
		}
		name := fmt.Sprintf("pod%d", p.number)
		if err := connect(name, ip, p.agent.HostIP, sysctls); err != nil {
			return err
		}
		p.netns = "/run/netns/" + name
	}
	if err := p.record(ip); err != nil {
		return err
	}
	p.mu.Lock()
	p.ip = ip
	p.mu.Unlock()
	p.report()
	return p.writeNames()
}

// record says in AddressLog which Pod has the address: only thus an audit log, which knows addresses,
// can be asked about Pods that have gone.
func (p *pod) record(ip string) error {
	file, err := os.OpenFile(filepath.Join(p.agent.State, AddressLog), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	var images []string
	for _, c := range p.containers {
		images = append(images, c.spec.Image)
	}
	line, err := json.Marshal(audit.Pod{IP: ip, Namespace: p.namespace, Name: p.name, Account: p.object.Spec.ServiceAccountName, Images: images})
	if err == nil {
		_, err = file.Write(append(line, '\n'))
	}
	return errors.Join(err, file.Close())
}

// writeNames writes the files by which a container finds names.
func (p *pod) writeNames() error {
	hostname := p.facts().hostname()
	hosts := "127.0.0.1 localhost\n::1 localhost\n" + p.ip + " " + hostname + "\n"
	for _, alias := range p.object.Spec.HostAliases {
		for _, name := range alias.Hostnames {
			hosts += alias.IP + " " + name + "\n"
		}
	}
	resolver := fmt.Sprintf("search %s.svc.%s svc.%s %s\nnameserver %s\noptions ndots:5\n", p.namespace, Domain, Domain, Domain, p.agent.HostIP)
	for name, text := range map[string]string{"hosts": hosts, "resolv.conf": resolver, "hostname": hostname + "\n"} {
		if err := os.WriteFile(filepath.Join(p.dir, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// waitForVolumes retries until everything that the volumes refer to exists: no deadline but the
// Pod's own end, as on any node.
func (p *pod) waitForVolumes() bool {
	said := ""
	for {
		err := p.makeVolumes(p.ctx)
		if err == nil {
			return true
		}
		if err.Error() != said && p.ctx.Err() == nil {
			said = err.Error()
			log.Printf("Pod %s/%s waits: %v", p.namespace, p.name, err)
		}
		select {
		case <-p.ctx.Done():
			return false
		case <-p.stale:
		case <-time.After(time.Second):
		}
	}
}

func (p *pod) keepVolumes() {
	ticker := time.NewTicker(refreshPeriod)
	defer ticker.Stop()
	for {
		select {
		case <-p.ctx.Done():
			return
		case <-p.stale:
		case <-ticker.C:
		}
		p.refresh(p.ctx)
	}
}

// runContainers runs the init containers in order and then the others together. Sidecars (init
// containers that restart always) stay until the others have ended.
func (p *pod) runContainers() {
	var sidecars, main sync.WaitGroup
	sidecarsEnd, endSidecars := context.WithCancel(context.Background())
	defer sidecars.Wait()
	defer endSidecars()
	for _, c := range p.containers {
		switch {
		case c.sidecar():
			sidecars.Go(func() { c.run(sidecarsEnd) })
			if !c.waitStarted(p.ctx) {
				return
			}
		case c.init:
			if c.run(p.ctx); !c.succeeded() {
				return
			}
		default:
			main.Go(func() { c.run(p.ctx) })
		}
	}
	main.Wait()
}

func (p *pod) cleanUp() {
	if p.netns != "" {
		if err := disconnect(filepath.Base(p.netns)); err != nil {
			log.Printf("Pod %s/%s: remove network: %v", p.namespace, p.name, err)
		}
		p.agent.addresses.release(p.number)
	}
	for _, v := range p.object.Spec.Volumes {
		if v.EmptyDir != nil && v.EmptyDir.Medium == corev1.StorageMediumMemory {
			_ = unix.Unmount(p.volumeDir(v.Name), unix.MNT_DETACH) // not mounted if the Pod never got that far
		}
	}
	if err := os.RemoveAll(p.dir); err != nil {
		log.Printf("Pod %s/%s: remove its files: %v", p.namespace, p.name, err)
	}
}
