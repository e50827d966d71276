package trials

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"penstock/conformance/cluster/retry"
)

// The definitions that are deleted, files of deploy/crds, and how soon an object is honoured once they are back.
var (
	deleted    = []string{"inference.networking.x-k8s.io_inferencemodels", "inference.networking.x-k8s.io_inferenceobjectives"}
	definition = []string{"inferencemodels.inference.networking.x-k8s.io", "inferenceobjectives.inference.networking.x-k8s.io"}
)

const (
	honoured = 10 * time.Second
	// On a machine that is busy elsewhere, which has to start kubectl first, for instance.
	honouredSlack = 2
)

// renamed is a model that clients know under another name; what has no weight gets no question.
func renamed(name string) string {
	return fmt.Sprintf(`---
apiVersion: inference.networking.x-k8s.io/v1alpha2
kind: InferenceModel
metadata: {name: %s, namespace: outages}
spec:
  modelName: %s
  criticality: Critical
  poolRef: {group: inference.networking.k8s.io, name: servers}
  targetModels: [{name: nobody, weight: 0}, {name: %s, weight: 1}]
`, name, name, model)
}

func objective(name string) string {
	return fmt.Sprintf(`---
apiVersion: inference.networking.x-k8s.io/v1alpha2
kind: InferenceObjective
metadata: {name: %s, namespace: outages}
spec: {priority: 5, poolRef: {name: servers}}
`, name)
}

// definitions deletes definitions whose objects are in use, and brings them back.
func definitions(ctx context.Context, b Bed) error {
	address, err := b.staged(ctx)
	if err != nil {
		return err
	}
	if err := b.apply(ctx, renamed("known")+objective("known")); err != nil {
		return err
	}
	if err := retry.Until(ctx, patience, func() error { return chat(ctx, address, "known") }); err != nil {
		return err
	}
	err = loaded(ctx, address, "known", false, func(ctx context.Context) error {
		if _, err := b.Kubectl(ctx, "", "delete", "crd", definition[0], definition[1]); err != nil {
			return err
		}
		// Longer than controllers wait before they look again.
		wait(ctx, 5*time.Second)
		return nil
	})
	if err != nil {
		return fmt.Errorf("without definitions: %w", err)
	}
	// The definitions come back without the objects that went with them.
	return loaded(ctx, address, model, false, func(ctx context.Context) error { return b.redefine(ctx, address) })
}

func (b Bed) redefine(ctx context.Context, address string) error {
	for _, name := range deleted {
		text, err := os.ReadFile(filepath.Join(b.Repo, "deploy/crds", name+".yaml"))
		if err != nil {
			return err
		}
		if err := b.apply(ctx, string(text)); err != nil {
			return err
		}
	}
	if _, err := b.Kubectl(ctx, "", "wait", "--for=condition=Established", "--timeout="+patience.String(), "crd", definition[0], definition[1]); err != nil {
		return err
	}
	began := time.Now()
	if err := b.apply(ctx, renamed("new")+objective("new")); err != nil {
		return err
	}
	if err := retry.Until(ctx, patience, func() error { return chat(ctx, address, "new") }); err != nil {
		return err
	}
	served := time.Since(began)
	err := retry.Until(ctx, patience, func() error {
		for _, kind := range []string{"inferencemodel", "inferenceobjective"} {
			status, err := b.Kubectl(ctx, "", "get", kind+".inference.networking.x-k8s.io/new", "-n", outages, "-o", `jsonpath={.status.conditions[?(@.type=="Accepted")].status}`)
			if err != nil || status != "True" {
				return fmt.Errorf("%s has the status %q %w", kind, status, err)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	judged := time.Since(began)
	fmt.Printf("        once their definitions were back, objects were honoured after %.1f s and had their statuses after %.1f s\n", served.Seconds(), judged.Seconds())
	if most := honouredSlack * honoured; served > most || judged > most {
		return fmt.Errorf("that is not within %v", most)
	}
	_, err = b.Kubectl(ctx, "", "delete", "-n", outages, "inferencemodel/new", "inferenceobjective.inference.networking.x-k8s.io/new")
	return err
}
