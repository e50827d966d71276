package agent

import (
	"context"
	"encoding/json"
	"log"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// report asks for the status to be published; several reports at once become one.
func (p *pod) report() {
	select {
	case p.changed <- struct{}{}:
	default:
	}
}

// publishAll writes the Pod's status whenever it has changed, and a last time when ctx ends.
func (p *pod) publishAll(ctx context.Context) {
	var before corev1.PodStatus
	for ctx.Err() == nil {
		select {
		case <-p.changed:
		case <-ctx.Done():
		}
		status := p.status(before, metav1.Now())
		if err := p.publish(status); err != nil {
			log.Printf("Pod %s/%s: publish its status: %v", p.namespace, p.name, err)
			time.AfterFunc(time.Second, p.report)
			continue
		}
		before = status
	}
}

func (p *pod) publish(status corev1.PodStatus) error {
	ctx, cancel := context.WithTimeout(context.Background(), requestDeadline)
	defer cancel()
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": p.object.UID}, "status": status})
	if err != nil {
		return err
	}
	_, err = p.agent.client.CoreV1().Pods(p.namespace).Patch(ctx, p.name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil // gone, or another Pod has its name now
	}
	return err
}

// status is the Pod's status now; a condition that is as before keeps its time.
func (p *pod) status(before corev1.PodStatus, now metav1.Time) corev1.PodStatus {
	p.mu.Lock()
	defer p.mu.Unlock()
	status := corev1.PodStatus{
		PodIP: p.ip, HostIP: p.agent.HostIP, HostIPs: []corev1.HostIP{{IP: p.agent.HostIP}},
		StartTime: before.StartTime, QOSClass: p.latest.Status.QOSClass,
	}
	if status.StartTime == nil {
		status.StartTime = &now
	}
	if p.ip != "" {
		status.PodIPs = []corev1.PodIP{{IP: p.ip}}
	}
	initialized, ready := true, true
	for _, c := range p.containers {
		one := c.status()
		if c.init {
			status.InitContainerStatuses = append(status.InitContainerStatuses, one)
			initialized = initialized && (c.sidecar() && c.started || c.over && c.state.Terminated != nil && c.state.Terminated.ExitCode == 0)
			ready = ready && (!c.sidecar() || c.ready)
			continue
		}
		status.ContainerStatuses = append(status.ContainerStatuses, one)
		ready = ready && c.ready
	}
	status.Phase = phase(p.containers, p.refused != "")
	if p.refused != "" {
		status.Reason, status.Message, ready = "AgentRefused", p.refused, false
	}
	for _, each := range []struct {
		kind corev1.PodConditionType
		is   bool
	}{
		{corev1.PodScheduled, true}, {corev1.PodReadyToStartContainers, p.ip != ""}, {corev1.PodInitialized, initialized},
		{corev1.ContainersReady, ready}, {corev1.PodReady, ready && p.gatesOpen()},
	} {
		status.Conditions = append(status.Conditions, condition(before, each.kind, each.is, now))
	}
	return status
}

// gatesOpen says whether all readiness gates of the Pod are true.
func (p *pod) gatesOpen() bool {
	for _, gate := range p.latest.Spec.ReadinessGates {
		open := false
		for _, c := range p.latest.Status.Conditions {
			open = open || c.Type == gate.ConditionType && c.Status == corev1.ConditionTrue
		}
		if !open {
			return false
		}
	}
	return true
}

func condition(before corev1.PodStatus, kind corev1.PodConditionType, is bool, now metav1.Time) corev1.PodCondition {
	status := corev1.ConditionFalse
	if is {
		status = corev1.ConditionTrue
	}
	for _, c := range before.Conditions {
		if c.Type == kind && c.Status == status {
			return c
		}
	}
	return corev1.PodCondition{Type: kind, Status: status, LastTransitionTime: now}
}

// phase sums up the containers.
func phase(containers []*container, refused bool) corev1.PodPhase {
	if refused {
		return corev1.PodFailed
	}
	pending, over, failed := false, true, false
	for _, c := range containers {
		ended := c.over && c.state.Terminated != nil
		bad := ended && c.state.Terminated.ExitCode != 0
		switch {
		case c.sidecar():
		case c.init:
			if bad {
				return corev1.PodFailed
			}
			pending = pending || !ended
		default:
			pending = pending || c.state.Waiting != nil && c.last.Terminated == nil
			over, failed = over && ended, failed || bad
		}
	}
	switch {
	case pending:
		return corev1.PodPending
	case over && failed:
		return corev1.PodFailed
	case over:
		return corev1.PodSucceeded
	}
	return corev1.PodRunning
}

func (c *container) status() corev1.ContainerStatus {
	started := c.started
	status := corev1.ContainerStatus{
		Name: c.spec.Name, Image: c.spec.Image, ImageID: "program://" + c.spec.Image, Ready: c.ready, Started: &started,
		RestartCount: c.restarts, State: c.state, LastTerminationState: c.last,
	}
	if c.init && !c.sidecar() {
		status.Ready = c.over && c.state.Terminated != nil && c.state.Terminated.ExitCode == 0
	}
	return status
}
