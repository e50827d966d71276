package trials

import "fmt"

// What several trials are made of.

// model is what their own servers serve.
const model = "trial-model"

func namespaceManifest(name string) string {
	return fmt.Sprintf("---\n{apiVersion: v1, kind: Namespace, metadata: {name: %s}}\n", name)
}

// gatewayManifest is a Gateway that listens for HTTP; more is what its spec has beside that, in YAML's
// short form.
func gatewayManifest(namespace, name, class, more string) string {
	return fmt.Sprintf(`---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: %s, namespace: %s}
spec: {gatewayClassName: %s, listeners: [{name: http, port: 80, protocol: HTTP}]%s}
`, name, namespace, class, more)
}

// serversManifest is a Deployment of model servers with the label app=servers.
func serversManifest(namespace string, replicas int) string {
	return fmt.Sprintf(`---
apiVersion: apps/v1
kind: Deployment
metadata: {name: servers, namespace: %s}
spec:
  replicas: %d
  selector: {matchLabels: {app: servers}}
  template:
    metadata: {labels: {app: servers}}
    spec:
      terminationGracePeriodSeconds: 30
      containers:
        - name: server
          image: vllm/vllm-openai
          args: [--model, %s, --port, "8000"]
          ports: [{containerPort: 8000}]
          readinessProbe: {httpGet: {path: /health, port: 8000}, periodSeconds: 1}
          lifecycle: {preStop: {sleep: {seconds: 2}}}
`, namespace, replicas, model)
}
