package trials

import (
	"context"
	"fmt"
	"strings"

	"penstock/conformance/cluster/retry"
)

// twoAddresses asks for both of the addresses that the cluster keeps for those who ask.
var twoAddresses = namespaceManifest("drift") + gatewayManifest("drift", "gateway", "penstock",
	", addresses: [{type: IPAddress, value: 10.240.0.210}, {type: IPAddress, value: 10.240.0.211}]")

// drift changes what was made for a Gateway by hand.
func drift(ctx context.Context, b Bed) error {
	if err := b.apply(ctx, twoAddresses); err != nil {
		return err
	}
	if _, err := b.address(ctx, "drift", "gateway"); err != nil {
		return err
	}
	addresses, err := b.Kubectl(ctx, "", "get", "-n", "drift", "gateway/gateway", "-o", "jsonpath={.status.addresses[*].value}")
	if err != nil || addresses != "10.240.0.210 10.240.0.211" {
		return fmt.Errorf("the addresses are %q, not both that were asked for; %w", addresses, err)
	}
	for _, address := range strings.Fields(addresses) {
		// There is no route, which a proxy says.
		err := retry.Until(ctx, patience, func() error {
			err := ask(ctx, "GET", "http://"+address+"/", nil, nil)
			if err == nil || !strings.Contains(err.Error(), "no_route") {
				return fmt.Errorf("%s: %w", address, err)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	const deployment = "deployment/gateway-penstock"
	for _, change := range []string{
		`{"spec":{"template":{"spec":{"containers":[{"name":"proxy","image":"elsewhere/penstock"}]}}}}`,
		`{"spec":{"template":{"spec":{"enableServiceLinks":true}}}}`,
	} {
		if _, err := b.Kubectl(ctx, "", "patch", "-n", "drift", deployment, "-p", change); err != nil {
			return err
		}
		err := retry.Until(ctx, patience, func() error {
			stands, err := b.Kubectl(ctx, "", "get", "-n", "drift", deployment, "-o", "jsonpath={.spec.template.spec.containers[0].image} {.spec.template.spec.enableServiceLinks}")
			if err == nil && (strings.HasPrefix(stands, "elsewhere/") || strings.HasSuffix(stands, " true")) {
				err = fmt.Errorf("the change stands: %s", stands)
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	if _, err := b.Kubectl(ctx, "", "scale", "-n", "drift", deployment, "--replicas=1"); err != nil {
		return err
	}
	// Another change, after which everything is applied again.
	again := strings.Replace(twoAddresses, ", {type: IPAddress, value: 10.240.0.211}", "", 1)
	if err := b.apply(ctx, again); err != nil {
		return err
	}
	err = retry.Until(ctx, patience, func() error {
		services, err := b.Kubectl(ctx, "", "get", "-n", "drift", "services", "-o", "name")
		if err == nil && strings.Count(services, "service/") != 1 {
			err = fmt.Errorf("the Service of an address that is not wanted any more stands: %s", services)
		}
		return err
	})
	if err != nil {
		return err
	}
	replicas, err := b.Kubectl(ctx, "", "get", "-n", "drift", deployment, "-o", "jsonpath={.spec.replicas}")
	if err != nil || replicas != "1" {
		return fmt.Errorf("the number of proxies that a person chose was changed to %s; %w", replicas, err)
	}
	_, err = b.Kubectl(ctx, "", "delete", "namespace/drift", "--wait=false")
	return err
}
