package trials

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"penstock/conformance/cluster/retry"
)

// takeover is how long a changed route may wait for its status when the controller that writes has been
// killed. Its Lease runs out after 10 s, and the other replica looks at it every 2 s.
const takeover = 20 * time.Second

// changing is a route of the stage's Gateway whose path changes; who asks for it is sent elsewhere.
func changing(path string) string {
	return fmt.Sprintf(`{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: other, namespace: outages},
spec: {parentRefs: [{name: gateway}], rules: [{matches: [{path: {value: %s}}],
filters: [{type: RequestRedirect, requestRedirect: {hostname: elsewhere.example}}]}]}}`, path)
}

// leader kills the controller that writes, and changes a route before another one can have taken over.
func leader(ctx context.Context, b Bed) error {
	address, err := b.staged(ctx)
	if err != nil {
		return err
	}
	if err := b.apply(ctx, changing("/before")); err != nil {
		return err
	}
	if err := retry.Until(ctx, patience, func() error { return b.judged(ctx) }); err != nil {
		return err
	}
	err = loaded(ctx, address, model, false, func(ctx context.Context) error { return b.replaceLeader(ctx, address) })
	if err != nil {
		return err
	}
	_, err = b.Kubectl(ctx, "", "delete", "httproute/other", "-n", outages)
	return err
}

func (b Bed) replaceLeader(ctx context.Context, address string) error {
	killed, err := b.holder(ctx)
	if err != nil {
		return err
	}
	pod, at, _ := strings.Cut(killed, "_")
	ip, _, ok := strings.Cut(at, ":")
	if !ok {
		return fmt.Errorf("the holder of the Lease, %q, is no POD_IP:PORT", killed)
	}
	began := time.Now()
	if err := killAll(ip, "penstock", "controller"); err != nil {
		return err
	}
	// Started again in its Pod it would find the Lease its own; as after the loss of a machine it does not come back.
	if _, err := b.Kubectl(ctx, "", "delete", "pod", "-n", controllers, pod, "--force", "--grace-period=0", "--wait=false"); err != nil {
		return err
	}
	if err := b.apply(ctx, changing("/after")); err != nil {
		return err
	}
	if err := retry.Until(ctx, patience, func() error { return redirected(ctx, address, "/after") }); err != nil {
		return err
	}
	served := time.Since(began)
	if err := retry.Until(ctx, patience, func() error { return b.judged(ctx) }); err != nil {
		return err
	}
	written := time.Since(began)
	leads, err := b.holder(ctx)
	if err != nil {
		return err
	}
	fmt.Printf("        without the leading controller a changed route was served after %.1f s and had its status after %.1f s\n", served.Seconds(), written.Seconds())
	if leads == killed || leads == "" {
		return fmt.Errorf("the Lease is still held by %q, whom nobody replaced", leads)
	}
	if served > takeover || written > takeover {
		return fmt.Errorf("that is not within %v", takeover)
	}
	return b.rolledOut(ctx, controllers, "penstock-controller")
}

// controllers is the namespace of ours.
const controllers = "penstock-system"

// holder is who leads.
func (b Bed) holder(ctx context.Context) (string, error) {
	return b.Kubectl(ctx, "", "get", "lease/penstock-controller", "-n", controllers, "-o", "jsonpath={.spec.holderIdentity}")
}

// judged says an error unless the status of the changing route speaks of what it now says.
func (b Bed) judged(ctx context.Context) error {
	text, err := b.Kubectl(ctx, "", "get", "httproute/other", "-n", outages, "-o",
		`jsonpath={.metadata.generation}:{.status.parents[*].conditions[?(@.status=="True")].observedGeneration}`)
	if err != nil {
		return err
	}
	generation, observed, _ := strings.Cut(text, ":")
	if observed != generation+" "+generation {
		return fmt.Errorf("the route of generation %s is Accepted and ResolvedRefs at %q", generation, observed)
	}
	return nil
}

// unled does not go where it is sent.
var unled = &http.Client{Timeout: 30 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}

func redirected(ctx context.Context, address, path string) error {
	request, err := http.NewRequestWithContext(ctx, "GET", "http://"+address+path, nil)
	if err != nil {
		return err
	}
	response, err := unled.Do(request)
	if err != nil {
		return err
	}
	response.Body.Close()
	if response.StatusCode != http.StatusFound {
		return fmt.Errorf("%s: status %d, not sent elsewhere", path, response.StatusCode)
	}
	return nil
}
