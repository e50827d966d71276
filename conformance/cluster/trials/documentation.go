package trials

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// documentation runs the commands of docs/kubernetes.md as they stand there, in order: the blocks
// marked `sh`, in one shell for each heading. A line of a block that begins with `# ->` says what
// the output of the block must contain.
func documentation(ctx context.Context, b Bed) error {
	text, err := os.ReadFile(filepath.Join(b.Repo, "docs/kubernetes.md"))
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "documentation")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	// What a reader has: kubectl and penstock.
	for name, script := range map[string]string{
		"kubectl":  fmt.Sprintf("#!/bin/sh\nexec %s/controlplane kubectl \"$@\"\n", b.Binaries),
		"penstock": fmt.Sprintf("#!/bin/sh\nexec %s \"$@\"\n", b.Penstock),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(script), 0o755); err != nil {
			return err
		}
	}
	count := 0
	for _, part := range strings.Split(string(text), "```sh\n")[1:] {
		block, _, _ := strings.Cut(part, "```")
		if err := b.shell(ctx, dir, block); err != nil {
			return err
		}
		count++
	}
	if count < 8 {
		return fmt.Errorf("docs/kubernetes.md has only %d blocks of commands", count)
	}
	return nil
}

func (b Bed) shell(ctx context.Context, dir, block string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	command := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", block)
	command.Dir, command.WaitDelay = b.Repo, time.Second
	command.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"), "KUBECONFIG="+b.Kubeconfig)
	output, err := command.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w:\n%s\nsaid:\n%s", err, block, output)
	}
	for _, line := range strings.Split(block, "\n") {
		if wanted, ok := strings.CutPrefix(line, "# -> "); ok && !strings.Contains(string(output), wanted) {
			return fmt.Errorf("no %q in the output of\n%s\nbut:\n%s", wanted, block, output)
		}
	}
	return nil
}
