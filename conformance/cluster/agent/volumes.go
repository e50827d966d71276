package agent

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"penstock/conformance/cluster/sandbox"
)

func (p *pod) volumeDir(name string) string { return filepath.Join(p.dir, "volumes", name) }

// makeVolumes creates every volume of the Pod; an error means that something it refers to is not
// there yet.
func (p *pod) makeVolumes(ctx context.Context) error {
	for i := range p.object.Spec.Volumes {
		v := &p.object.Spec.Volumes[i]
		if err := p.makeVolume(ctx, v); err != nil {
			return fmt.Errorf("volume %s: %w", v.Name, err)
		}
	}
	return nil
}

func (p *pod) makeVolume(ctx context.Context, v *corev1.Volume) error {
	dir := p.volumeDir(v.Name)
	switch {
	case v.EmptyDir != nil:
		return p.makeEmptyDir(v.EmptyDir, dir)
	case v.HostPath != nil:
		if t := v.HostPath.Type; t != nil && strings.HasSuffix(string(*t), "DirectoryOrCreate") {
			return os.MkdirAll(v.HostPath.Path, 0o755)
		}
		return nil
	}
	files, err := p.volumeFiles(ctx, v)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	_, err = writeVolume(dir, files, p.group())
	return err
}

// makeEmptyDir makes a directory that anybody may write, in memory of its own where asked for.
func (p *pod) makeEmptyDir(source *corev1.EmptyDirVolumeSource, dir string) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if source.Medium == corev1.StorageMediumMemory {
		options := ""
		if source.SizeLimit != nil {
			options = fmt.Sprintf("size=%d", source.SizeLimit.Value())
		}
		if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, options); err != nil {
			return fmt.Errorf("mount memory: %w", err)
		}
	}
	if err := os.Chown(dir, -1, p.group()); err != nil {
		return err
	}
	mode := uint32(0o777)
	if p.group() >= 0 {
		mode |= unix.S_ISGID
	}
	return unix.Chmod(dir, mode)
}

// group owns the Pod's volumes, -1 where the Pod names none.
func (p *pod) group() int {
	if s := p.object.Spec.SecurityContext; s != nil && s.FSGroup != nil {
		return int(*s.FSGroup)
	}
	return -1
}

// refreshVolumes writes what changed in ConfigMaps, Secrets and tokens into the namespace's Pods.
func (a *Agent) refreshVolumes(namespace string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, p := range a.pods {
		if p.namespace == namespace {
			p.wantRefresh()
		}
	}
}

func (p *pod) refresh(ctx context.Context) {
	for i := range p.object.Spec.Volumes {
		v := &p.object.Spec.Volumes[i]
		if v.ConfigMap == nil && v.Secret == nil && v.Projected == nil && v.DownwardAPI == nil {
			continue
		}
		// An object that has gone leaves the files as they are, as the kubelet does.
		if err := p.makeVolume(ctx, v); err != nil && !apierrors.IsNotFound(err) && ctx.Err() == nil {
			log.Printf("Pod %s/%s: refresh volume %s: %v", p.namespace, p.name, v.Name, err)
		}
	}
}

// mounts are what the container sees of the Pod's volumes.
func (p *pod) mounts(c *corev1.Container, env []string) ([]sandbox.Mount, error) {
	all := []sandbox.Mount{
		{Source: filepath.Join(p.dir, "hosts"), Target: "/etc/hosts"},
		{Source: filepath.Join(p.dir, "resolv.conf"), Target: "/etc/resolv.conf"},
		{Source: filepath.Join(p.dir, "hostname"), Target: "/etc/hostname"},
	}
	for _, m := range c.VolumeMounts {
		source := p.volumeDir(m.Name)
		readOnly := m.ReadOnly
		for _, v := range p.object.Spec.Volumes {
			if v.Name == m.Name && v.HostPath != nil {
				source = v.HostPath.Path
			} else if v.Name == m.Name && v.EmptyDir == nil {
				readOnly = true
			}
		}
		if sub := m.SubPath + expand(m.SubPathExpr, env); sub != "" {
			path, err := subPath(source, sub)
			if err != nil {
				return nil, fmt.Errorf("volume mount %s: %w", m.MountPath, err)
			}
			source = path
		}
		all = append(all, sandbox.Mount{Source: source, Target: m.MountPath, ReadOnly: readOnly})
	}
	return all, nil
}

// subPath finds what is mounted for a path in a volume; what does not exist becomes a directory.
func subPath(dir, sub string) (string, error) {
	path := filepath.Join(dir, filepath.Clean("/"+sub))
	resolved, err := filepath.EvalSymlinks(path)
	if errors.Is(err, os.ErrNotExist) {
		return path, os.MkdirAll(path, 0o777)
	}
	return resolved, err
}

// configMap and secret look up what the Pod refers to: what the agent has seen, else what is there.
func (p *pod) configMap(name string) (*corev1.ConfigMap, error) {
	found, err := p.agent.informers.Core().V1().ConfigMaps().Lister().ConfigMaps(p.namespace).Get(name)
	if apierrors.IsNotFound(err) {
		ctx, cancel := context.WithTimeout(context.Background(), requestDeadline)
		defer cancel()
		return p.agent.client.CoreV1().ConfigMaps(p.namespace).Get(ctx, name, metav1.GetOptions{})
	}
	return found, err
}

func (p *pod) secret(name string) (*corev1.Secret, error) {
	found, err := p.agent.informers.Core().V1().Secrets().Lister().Secrets(p.namespace).Get(name)
	if apierrors.IsNotFound(err) {
		ctx, cancel := context.WithTimeout(context.Background(), requestDeadline)
		defer cancel()
		return p.agent.client.CoreV1().Secrets(p.namespace).Get(ctx, name, metav1.GetOptions{})
	}
	return found, err
}
