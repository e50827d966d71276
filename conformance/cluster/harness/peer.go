package main

import (
	"context"
	"fmt"
	"path/filepath"
)

// peer is a gateway of others, by which faults of the harness are told from faults of ours.
type peer struct {
	class    string
	programs map[string]string // image -> program that install.sh built
	features string            // what it supports at least; it does not say so itself
}

var peers = map[string]peer{
	"envoy-gateway": {
		class:    "envoy",
		programs: map[string]string{"envoyproxy/gateway": "envoy-gateway", "envoyproxy/envoy": "envoy"},
		features: "Gateway,ReferenceGrant,HTTPRoute",
	},
}

func (b *bench) installPeer(ctx context.Context) error {
	b.class = peers[b.peer].class
	manifests := filepath.Join(b.repo, "conformance/peers", b.peer, "manifests.yaml")
	if _, err := b.cluster.Kubectl(ctx, "", "apply", "--server-side", "-f", manifests); err != nil {
		return fmt.Errorf("apply peer %s: %w", b.peer, err)
	}
	return b.waitForGateway(ctx)
}
