// The conformance suite of the Gateway API, as its project publishes it. All flags are the suite's
// own; see ../README.md for how it is run.
package gateway

import (
	"testing"

	"sigs.k8s.io/gateway-api/conformance"
)

func TestConformance(t *testing.T) { conformance.RunConformance(t) }
