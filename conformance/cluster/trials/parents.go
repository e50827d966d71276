package trials

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"penstock/conformance/cluster/retry"
)

// parents is one route on two Gateways of ours and on one of somebody else.
var parents = namespaceManifest("parents") + gatewayManifest("parents", "one", "penstock", "") +
	gatewayManifest("parents", "two", "penstock", "") + gatewayManifest("parents", "foreign", "foreign", "") + `---
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: foreign}
spec: {controllerName: example.com/foreign}
---
`

func parentRoute(gateways ...string) string {
	return fmt.Sprintf(`{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: route, namespace: parents},
spec: {parentRefs: [{name: %s}], rules: [{filters: [{type: RequestRedirect, requestRedirect: {hostname: elsewhere.example}}]}]}}`, strings.Join(gateways, "}, {name: "))
}

// The other controller's entry, as it wrote it.
const foreignEntry = `{"controllerName":"example.com/foreign","parentRef":{"group":"gateway.networking.k8s.io","kind":"Gateway","name":"foreign"},
"conditions":[{"type":"Accepted","status":"True","reason":"Accepted","message":"mine","observedGeneration":1,"lastTransitionTime":"2024-01-01T00:00:00Z"}]}`

type parentStatus struct {
	ControllerName string
	ParentRef      struct{ Name string }
	Conditions     []struct {
		Type, Status, Message string
	}
}

// manyParents checks that our entries are right and that the other controller's is left alone.
func manyParents(ctx context.Context, b Bed) error {
	if err := b.apply(ctx, parents+parentRoute("one", "two", "foreign")); err != nil {
		return err
	}
	for _, gateway := range []string{"one", "two"} {
		if _, err := b.address(ctx, "parents", gateway); err != nil {
			return err
		}
	}
	if err := b.parentsAre(ctx, "one", "two"); err != nil {
		return err
	}
	add := `[{"op":"add","path":"/status/parents/-","value":` + foreignEntry + `}]`
	if _, err := b.Kubectl(ctx, "", "patch", "httproute/route", "-n", "parents", "--subresource=status", "--type=json", "-p", add); err != nil {
		return err
	}
	for _, ours := range [][]string{{"one", "two"}, {"two"}, {"two", "one"}, {}} {
		if err := b.apply(ctx, parentRoute(append(slices.Clone(ours), "foreign")...)); err != nil {
			return err
		}
		if err := b.parentsAre(ctx, append(slices.Clone(ours), "foreign")...); err != nil {
			return err
		}
	}
	status, err := b.Kubectl(ctx, "", "get", "gateway/foreign", "gatewayclass/foreign", "-n", "parents", "-o", "jsonpath={.items[*].status.conditions[*].status}")
	if err != nil {
		return err
	}
	if strings.Contains(status, "True") || strings.Contains(status, "False") {
		return fmt.Errorf("somebody else's Gateway or class got a status from us: %s", status)
	}
	_, err = b.Kubectl(ctx, "", "delete", "namespace/parents", "--wait=false")
	return err
}

// parentsAre waits until the route's status has entries of these Gateways and no others, with the
// foreign one as it was written.
func (b Bed) parentsAre(ctx context.Context, wanted ...string) error {
	slices.Sort(wanted)
	return retry.Until(ctx, patience, func() error {
		text, err := b.Kubectl(ctx, "", "get", "httproute/route", "-n", "parents", "-o", "jsonpath={.status.parents}")
		if err != nil {
			return err
		}
		var entries []parentStatus
		if text != "" {
			if err := json.Unmarshal([]byte(text), &entries); err != nil {
				return err
			}
		}
		var names []string
		for _, entry := range entries {
			names = append(names, entry.ParentRef.Name)
			accepted := len(entry.Conditions) > 0 && entry.Conditions[0].Status == "True"
			untouched := entry.ParentRef.Name != "foreign" ||
				entry.ControllerName == "example.com/foreign" && len(entry.Conditions) == 1 && entry.Conditions[0].Message == "mine"
			if !accepted || !untouched {
				return fmt.Errorf("a wrong entry: %+v", entry)
			}
		}
		slices.Sort(names)
		if !slices.Equal(names, wanted) {
			return fmt.Errorf("entries of %v, not of %v", names, wanted)
		}
		wait(ctx, 300*time.Millisecond) // nothing takes it back a moment later
		return nil
	})
}
