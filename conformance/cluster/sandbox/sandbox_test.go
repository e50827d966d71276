package sandbox

import (
	"os"
	"path/filepath"
	"reflect"
	"testing"
)

func TestCapabilities(t *testing.T) {
	for _, c := range []struct {
		add, drop, want []string
	}{
		{},
		{nil, []string{"ALL"}, nil},
		{[]string{"NET_BIND_SERVICE"}, []string{"ALL"}, []string{"NET_BIND_SERVICE"}},
		{[]string{"CAP_NET_ADMIN"}, []string{"ALL"}, []string{"NET_ADMIN"}},
	} {
		if c.drop == nil {
			if got := Capabilities(nil, nil); len(got) != len(DefaultCapabilities) {
				t.Errorf("the default is %v", got)
			}
			continue
		}
		if got := Capabilities(c.add, c.drop); !reflect.DeepEqual(got, c.want) {
			t.Errorf("add %v, drop %v: %v", c.add, c.drop, got)
		}
	}
}

func TestResolvesTheImagesProgramLast(t *testing.T) {
	root := t.TempDir()
	if err := os.MkdirAll(filepath.Join(root, "usr/bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "usr/bin/sleep"), nil, 0o755); err != nil {
		t.Fatal(err)
	}
	env := []string{"PATH=/image:/usr/bin"}
	for name, want := range map[string]string{
		"sleep": "/usr/bin/sleep", "/usr/bin/sleep": "/usr/bin/sleep", "server": "/image/penstock", "/app/server": "/image/penstock",
	} {
		if got := Resolve(root, name, env, "/somewhere/penstock"); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
	if got := Resolve(root, "/app/server", env, ""); got != "/app/server" {
		t.Errorf("without a program: %s", got)
	}
}
