package audit

import (
	"fmt"
	"strings"
	"testing"
)

var rule = Rule{Image: "penstock", Namespace: "system", Account: "controller", Rights: []string{"clusterroles/controller"}}

var pods = []Pod{
	{IP: "10.0.0.1", Namespace: "system", Name: "controller-1", Account: "controller", Images: []string{"ghcr.io/penstock/penstock:1"}},
	{IP: "10.0.0.2", Namespace: "default", Name: "gateway-1", Account: "gateway", Images: []string{"ghcr.io/penstock/penstock:1"}},
	{IP: "10.0.0.3", Namespace: "default", Name: "picker-1", Account: "default", Images: []string{"lwepp"}},
}

func line(ip, user, verb, resource string, code int) string {
	decision := "allow"
	if code == 403 {
		decision = "forbid"
	}
	return fmt.Sprintf(`{"verb":%q,"requestURI":"/apis/x","user":{"username":%q},"sourceIPs":[%q],"objectRef":{"resource":%q,"name":"controller"},"responseStatus":{"code":%d},`+
		`"annotations":{"authorization.k8s.io/decision":%q}}`+"\n", verb, user, ip, resource, code, decision)
}

const ours = "system:serviceaccount:system:controller"

func TestTellsWhoAsks(t *testing.T) {
	for name, c := range map[string]struct {
		log   string
		asked int
		wrong string
	}{
		"the controller as itself":                    {line("10.0.0.1", ours, "list", "pods", 200), 1, ""},
		"somebody else as an administrator":           {line("10.0.0.3", "admin", "list", "pods", 200), 0, ""},
		"the controller as an administrator":          {line("10.0.0.1", "admin", "list", "pods", 200), 0, "is another than"},
		"the controller without a name":               {line("10.0.0.1", "system:anonymous", "list", "pods", 200), 0, "is another than"},
		"the controller is refused":                   {line("10.0.0.1", ours, "get", "secrets", 403), 0, "may not do"},
		"the controller in a namespace that is going": {strings.Replace(line("10.0.0.1", ours, "patch", "services", 403), "forbid", "allow", 1), 1, ""},
		"the controller is not known":                 {line("10.0.0.1", ours, "get", "secrets", 401), 0, "may not do"},
		"a proxy asks":                                {line("10.0.0.2", "system:serviceaccount:default:gateway", "list", "pods", 200), 0, "the proxy default/gateway-1"},
		"a proxy as the controller":                   {line("10.0.0.2", ours, "list", "pods", 200), 0, "the proxy default/gateway-1"},
		"somebody else as the controller":             {line("10.0.0.3", ours, "list", "pods", 200), 0, "somebody else"},
		"refused after its rights went":               {line("10.9.9.9", "admin", "delete", "clusterroles", 200) + line("10.0.0.1", ours, "list", "pods", 403), 1, ""},
		"refused after they came back": {line("10.9.9.9", "admin", "delete", "clusterroles", 200) + line("10.9.9.9", "admin", "patch", "clusterroles", 201) +
			line("10.0.0.1", ours, "list", "pods", 403), 0, "may not do"},
		"refused though nobody could delete": {line("10.9.9.9", "admin", "delete", "clusterroles", 404) + line("10.0.0.1", ours, "list", "pods", 403), 0, "may not do"},
		"half a line at the end":             {line("10.0.0.1", ours, "list", "pods", 200) + `{"verb":"li`, 1, ""},
	} {
		got, err := rule.Judge(strings.NewReader(c.log), pods)
		if err != nil || got.Asked != c.asked || len(got.Wrong) > 1 || !strings.Contains(strings.Join(got.Wrong, ""), c.wrong) || c.wrong == "" && got.Wrong != nil {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	if _, err := rule.Judge(strings.NewReader("no event\n"), pods); err == nil {
		t.Error("a line that is none was taken")
	}
}
