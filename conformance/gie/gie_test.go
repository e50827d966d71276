// The conformance suite of the Gateway API Inference Extension, as its project publishes it. All
// flags are the suite's own; see ../README.md for how it is run.
package gie

import (
	"testing"

	"sigs.k8s.io/gateway-api-inference-extension/conformance"
)

func TestConformance(t *testing.T) { conformance.RunConformance(t) }
