package supervise

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
)

// AuditLog is where the API server writes who asked for what.
const AuditLog = StateDir + "/audit.log"

// auditPolicy records every finished request without its body.
const auditPolicy = `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived, ResponseStarted]
rules: [{level: Metadata}]
`

// users are the identities of the cluster's own parts: all may do everything, and each has a name of
// its own in the audit log. Whatever runs in a Pod has its ServiceAccount's, under RBAC.
var users = []string{"admin", "suite", "agent", "controller-manager", "kube-proxy"}

func kubeconfig(user string) string { return at(user + ".kubeconfig") }

// Kubeconfig is the file for one of the users.
func Kubeconfig(user string) string { return kubeconfig(user) }

// writeCredentials makes the key that signs ServiceAccount tokens, a token and a kubeconfig per user
// and the audit policy.
func writeCredentials() error {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return err
	}
	public, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		return err
	}
	var tokens strings.Builder
	files := map[string]string{
		"sa.key":            string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})),
		"sa.pub":            string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public})),
		"audit-policy.yaml": auditPolicy,
	}
	for _, user := range users {
		token := user + "-" + rand.Text()
		fmt.Fprintf(&tokens, "%s,%s,%s,system:masters\n", token, user, user)
		files[user+".token"] = token
		files[user+".kubeconfig"] = fmt.Sprintf(`apiVersion: v1
kind: Config
clusters: [{name: penstock, cluster: {server: "https://%s:%s", insecure-skip-tls-verify: true}}]
users: [{name: %s, user: {token: %s}}]
contexts: [{name: penstock, context: {cluster: penstock, user: %s}}]
current-context: penstock
`, hostIP, apiPort, user, token, user)
	}
	files["tokens.csv"] = tokens.String()
	for name, text := range files {
		if err := os.WriteFile(at(name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// getReady asks the API server whether it is ready.
func getReady(ctx context.Context) (string, error) {
	token, err := os.ReadFile(at("admin.token"))
	if err != nil {
		return "", err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+hostIP+":"+apiPort+"/readyz", nil)
	if err != nil {
		return "", err
	}
	request.Header.Set("Authorization", "Bearer "+string(token))
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 1<<16))
	return string(body), err
}
