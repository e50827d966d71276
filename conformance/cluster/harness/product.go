package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// class is the GatewayClass of our own gateway, and controllerName who answers for it.
const (
	class          = "penstock"
	controllerName = "penstock.dev/gateway-controller"
)

// install brings the gateway that is to be tested into the cluster: a peer, or ours from
// deploy/kustomize, or none if there is no such directory.
func (b *bench) install(ctx context.Context) error {
	if b.peer != "" {
		return b.installPeer(ctx)
	}
	b.class = class
	kustomize := filepath.Join(b.repo, "deploy/kustomize")
	if _, err := os.Stat(kustomize); err != nil {
		fmt.Println("deploy/kustomize does not exist: there is no gateway in this cluster")
		b.bare = true
		return nil
	}
	if _, err := os.Stat(b.penstock); err != nil {
		return fmt.Errorf("the product's binary: %w; build it (cargo build --release) or name it with PENSTOCK=PATH", err)
	}
	if _, err := b.cluster.Kubectl(ctx, "", "apply", "--server-side", "-k", kustomize); err != nil {
		return fmt.Errorf("apply deploy/kustomize: %w", err)
	}
	if b.attached {
		if err := b.reload(ctx); err != nil {
			return err
		}
	}
	return b.waitForGateway(ctx)
}

// deployDeadline is how long a gateway's own Deployments may take to become available.
const deployDeadline = 90 * time.Second

// waitForGateway waits until the gateway's Deployments run and its GatewayClass is accepted.
func (b *bench) waitForGateway(ctx context.Context) error {
	_, err := b.cluster.Kubectl(ctx, "", "wait", "--for=condition=Available", "--timeout="+deployDeadline.String(), "deployment", "--all", "--all-namespaces")
	if err != nil {
		return fmt.Errorf("the gateway's controller did not become available; see its log and `kubectl describe`: %w", err)
	}
	_, err = b.cluster.Kubectl(ctx, "", "wait", "--for=condition=Accepted", "--timeout="+deployDeadline.String(), "gatewayclass", b.class)
	if err != nil {
		return fmt.Errorf("GatewayClass %s was not accepted; see the log of the gateway's controller: %w", b.class, err)
	}
	if b.peer != "" {
		return nil
	}
	_, err = b.cluster.Kubectl(ctx, "", "wait", "--for=jsonpath={.status.supportedFeatures[0].name}", "--timeout=30s", "gatewayclass", b.class)
	if err != nil {
		return fmt.Errorf("GatewayClass %s names no supported features in its status, from which the suite takes its tests: %w", b.class, err)
	}
	return nil
}

// acceptClass stands in for a gateway in one respect: a GatewayClass that is accepted, so that a
// suite goes on to its base manifests.
func (b *bench) acceptClass(ctx context.Context) error {
	manifest := fmt.Sprintf("{apiVersion: gateway.networking.k8s.io/v1, kind: GatewayClass, metadata: {name: %s}, spec: {controllerName: %s}}", class, controllerName)
	if _, err := b.cluster.Kubectl(ctx, manifest, "apply", "-f", "-"); err != nil {
		return err
	}
	status := fmt.Sprintf(`{"status":{"conditions":[{"type":"Accepted","status":"True","reason":"Accepted","message":"accepted by the harness, nothing implements it","observedGeneration":1,"lastTransitionTime":%q}]}}`,
		time.Now().UTC().Format(time.RFC3339))
	_, err := b.cluster.Kubectl(ctx, "", "patch", "gatewayclass", class, "--subresource=status", "--type=merge", "-p", status)
	return err
}
