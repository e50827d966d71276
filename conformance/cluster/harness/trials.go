package main

import (
	"context"
	"fmt"
	"path/filepath"

	"penstock/conformance/cluster/supervise"
	"penstock/conformance/cluster/trials"
)

// runTrials tests our gateway where no suite looks.
func (b *bench) runTrials(ctx context.Context) (int, error) {
	if err := b.install(ctx); err != nil {
		return 1, err
	}
	if b.bare {
		return 1, fmt.Errorf("there is no gateway to try")
	}
	bed := trials.Bed{
		Kubectl: b.cluster.Kubectl, Guides: filepath.Join(b.data, "guides"), Only: b.test, Long: b.long,
		Repo: b.repo, Binaries: b.binaries, Penstock: b.penstock, Kubeconfig: supervise.Kubeconfig("admin"), Cluster: b.cluster,
		Identities: identities,
	}
	if b.command == "scale" {
		return 0, trials.Scale(ctx, bed)
	}
	passed, failed, err := trials.Run(ctx, bed)
	fmt.Printf("trials: %d passed, %d failed\n", passed, failed)
	if failed > 0 {
		return 1, err
	}
	return 0, err
}
