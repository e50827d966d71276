// Package agent stands in for what a cluster has besides its control plane: scheduler, kubelet,
// container runtime, load balancer and cluster DNS. There is one node, this machine. Every Pod gets
// a network namespace of its own on one bridge, every container is a process made by the sandbox
// package. What is real and what is not is listed in ../../README.md.
package agent

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
)

// Config says where the agent finds the cluster and what stands for which image.
type Config struct {
	Kubeconfig string
	State      string // a directory of its own: logs, volumes
	Node       string
	HostIP     string // the bridge's address: DNS and logs are served there
	Programs   Programs
}

// Agent is the node.
type Agent struct {
	Config
	client    kubernetes.Interface
	informers informers.SharedInformerFactory
	addresses *addresses
	balancer  *balancer

	mu   sync.Mutex
	pods map[types.UID]*pod
}

// syncDeadline bounds the first listing of objects.
const syncDeadline = 30 * time.Second

// Run serves until ctx ends, then ends every container and returns.
func Run(ctx context.Context, config Config) error {
	rest, err := clientcmd.BuildConfigFromFlags("", config.Kubeconfig)
	if err != nil {
		return fmt.Errorf("read kubeconfig: %w", err)
	}
	rest.QPS, rest.Burst = 500, 1000
	client, err := kubernetes.NewForConfig(rest)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(config.State, "logs"), 0o755); err != nil {
		return err
	}
	a := &Agent{
		Config: config, client: client, informers: informers.NewSharedInformerFactory(client, 0),
		addresses: newAddresses(), balancer: newBalancer(), pods: map[types.UID]*pod{},
	}
	if err := a.registerNode(ctx); err != nil {
		return fmt.Errorf("register the node: %w", err)
	}
	if err := a.serveLogs(ctx); err != nil {
		return fmt.Errorf("serve container logs: %w", err)
	}
	if err := a.serveNames(ctx); err != nil {
		return fmt.Errorf("serve DNS: %w", err)
	}
	if err := a.watch(ctx); err != nil {
		return err
	}
	fmt.Println("agent ready")
	<-ctx.Done()
	a.stopAll()
	return nil
}

// watch registers what to do about each kind of object and waits until all of them are listed.
func (a *Agent) watch(ctx context.Context) error {
	core := a.informers.Core().V1()
	a.informers.Discovery().V1().EndpointSlices().Informer()
	on(core.Pods().Informer(), a.syncPod, a.podDeleted)
	on(core.Services().Informer(), a.syncService, a.serviceDeleted)
	on(core.Secrets().Informer(), func(s *corev1.Secret) { a.refreshVolumes(s.Namespace) }, nil)
	on(core.ConfigMaps().Informer(), func(c *corev1.ConfigMap) { a.refreshVolumes(c.Namespace) }, nil)
	a.informers.Start(ctx.Done())
	deadline, cancel := context.WithTimeout(ctx, syncDeadline)
	defer cancel()
	for kind, synced := range a.informers.WaitForCacheSync(deadline.Done()) {
		if !synced {
			return fmt.Errorf("no list of %v from the API server within %v", kind, syncDeadline)
		}
	}
	return nil
}

// on calls changed for every object that appears or changes and deleted for every one that goes.
func on[T any](informer cache.SharedIndexInformer, changed, deleted func(T)) {
	call := func(f func(T), object any) {
		if unknown, ok := object.(cache.DeletedFinalStateUnknown); ok {
			object = unknown.Obj
		}
		if o, ok := object.(T); ok && f != nil {
			f(o)
		}
	}
	_, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(o any) { call(changed, o) },
		UpdateFunc: func(_, o any) { call(changed, o) },
		DeleteFunc: func(o any) { call(deleted, o) },
	})
	if err != nil {
		log.Fatalf("watch: %v", err) // only an informer that was stopped refuses
	}
}

// syncPod binds a Pod that has no node, starts one that is new here and stops one that shall go.
func (a *Agent) syncPod(object *corev1.Pod) {
	switch {
	case object.Spec.NodeName == "" && object.DeletionTimestamp == nil:
		go a.bind(object)
		return
	case object.Spec.NodeName != a.Node:
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	it, known := a.pods[object.UID]
	switch {
	case known:
		it.update(object)
	case object.DeletionTimestamp != nil:
		go a.remove(object, func() bool { return false })
	case object.Status.Phase == corev1.PodSucceeded || object.Status.Phase == corev1.PodFailed:
	default:
		it = newPod(a, object)
		a.pods[object.UID] = it
		go it.run()
	}
}

func (a *Agent) podDeleted(object *corev1.Pod) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if it := a.pods[object.UID]; it != nil {
		it.stop(0) // deleted by force
	}
}

// requestDeadline bounds every single call to the API server.
const requestDeadline = 10 * time.Second

func (a *Agent) bind(object *corev1.Pod) {
	ctx, cancel := context.WithTimeout(context.Background(), requestDeadline)
	defer cancel()
	binding := &corev1.Binding{
		ObjectMeta: metav1.ObjectMeta{Name: object.Name, Namespace: object.Namespace, UID: object.UID},
		Target:     corev1.ObjectReference{Kind: "Node", Name: a.Node},
	}
	// A failure shows as a Pod that stays Pending; the next change of the Pod tries again.
	if err := a.client.CoreV1().Pods(object.Namespace).Bind(ctx, binding, metav1.CreateOptions{}); err != nil {
		log.Printf("bind Pod %s/%s: %v", object.Namespace, object.Name, err)
	}
}

// remove tells the API server that nothing of the Pod runs any more, again and again while that does not
// answer, as nobody else would, until enough says that it need not.
func (a *Agent) remove(object *corev1.Pod, enough func() bool) {
	for {
		err := a.delete(object)
		// A conflict: the name is another Pod's by now.
		if err == nil || apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
			return
		}
		log.Printf("remove Pod %s/%s: %v", object.Namespace, object.Name, err)
		if enough() {
			return
		}
		time.Sleep(time.Second)
	}
}

func (a *Agent) delete(object *corev1.Pod) error {
	ctx, cancel := context.WithTimeout(context.Background(), requestDeadline)
	defer cancel()
	now := int64(0)
	options := metav1.DeleteOptions{GracePeriodSeconds: &now, Preconditions: &metav1.Preconditions{UID: &object.UID}}
	return a.client.CoreV1().Pods(object.Namespace).Delete(ctx, object.Name, options)
}

// stopAll ends every Pod at once, with a short grace: the cluster itself is about to go.
func (a *Agent) stopAll() {
	a.mu.Lock()
	all := make([]*pod, 0, len(a.pods))
	for _, it := range a.pods {
		it.mu.Lock()
		it.leaving = true
		it.mu.Unlock()
		it.stop(lastGrace)
		all = append(all, it)
	}
	a.mu.Unlock()
	for _, it := range all {
		<-it.done
	}
}
