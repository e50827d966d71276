package main

import (
	"fmt"
	"path/filepath"
	"strings"

	"penstock/conformance/cluster/agent"
	"penstock/conformance/cluster/audit"
	"penstock/conformance/cluster/supervise"
)

// ours are the Pods of our gateway: the controller speaks under its own account, proxies never do.
var ours = audit.Rule{
	Image: "penstock", Namespace: "penstock-system", Account: "penstock-controller",
	Rights: []string{
		"clusterroles/penstock-controller", "clusterrolebindings/penstock-controller", "roles/penstock-controller",
		"rolebindings/penstock-controller", "serviceaccounts/penstock-controller", "namespaces/penstock-system",
	},
}

// identities says an error if one of our Pods asked the API server for something as whom it should not, or
// for what it may not have.
func identities() error {
	verdict, err := ours.Files(supervise.AuditLog, filepath.Join(supervise.StateDir, "agent", agent.AddressLog))
	switch {
	case err != nil:
		return err
	case len(verdict.Wrong) > 0:
		return fmt.Errorf("the audit log has what must not be:\n  %s", strings.Join(verdict.Wrong, "\n  "))
	case verdict.Asked == 0:
		return fmt.Errorf("the audit log has nothing of the controller's")
	}
	fmt.Printf("        the controller asked %d times, each time as itself and never for what it may not have; no proxy asked\n", verdict.Asked)
	return nil
}
