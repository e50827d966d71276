package agent

import (
	"context"
	"fmt"
	"maps"
	"os"
	"time"

	authv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// volumeFiles are the files of a volume that comes from the API server.
func (p *pod) volumeFiles(ctx context.Context, v *corev1.Volume) (map[string]volumeFile, error) {
	switch {
	case v.ConfigMap != nil:
		s := v.ConfigMap
		return p.configMapFiles(s.Name, s.Items, s.Optional, p.mode(s.DefaultMode))
	case v.Secret != nil:
		s := v.Secret
		return p.secretFiles(s.SecretName, s.Items, s.Optional, p.mode(s.DefaultMode))
	case v.DownwardAPI != nil:
		return p.downwardFiles(v.DownwardAPI.Items, p.mode(v.DownwardAPI.DefaultMode))
	case v.Projected != nil:
		return p.projectedFiles(ctx, v.Projected)
	}
	return nil, fmt.Errorf("the agent knows only emptyDir, hostPath, configMap, secret, downwardAPI and projected volumes")
}

func (p *pod) projectedFiles(ctx context.Context, projected *corev1.ProjectedVolumeSource) (map[string]volumeFile, error) {
	all := map[string]volumeFile{}
	mode := p.mode(projected.DefaultMode)
	for _, s := range projected.Sources {
		var files map[string]volumeFile
		var err error
		switch {
		case s.ServiceAccountToken != nil:
			files, err = p.tokenFile(ctx, s.ServiceAccountToken)
		case s.ConfigMap != nil:
			files, err = p.configMapFiles(s.ConfigMap.Name, s.ConfigMap.Items, s.ConfigMap.Optional, mode)
		case s.Secret != nil:
			files, err = p.secretFiles(s.Secret.Name, s.Secret.Items, s.Secret.Optional, mode)
		case s.DownwardAPI != nil:
			files, err = p.downwardFiles(s.DownwardAPI.Items, mode)
		default:
			err = fmt.Errorf("the agent knows only serviceAccountToken, configMap, secret and downwardAPI as projected sources")
		}
		if err != nil {
			return nil, err
		}
		maps.Copy(all, files)
	}
	return all, nil
}

func (p *pod) configMapFiles(name string, items []corev1.KeyToPath, optional *bool, mode os.FileMode) (map[string]volumeFile, error) {
	found, err := p.configMap(name)
	if apierrors.IsNotFound(err) && first(false, optional) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	data := maps.Clone(found.BinaryData)
	if data == nil {
		data = map[string][]byte{}
	}
	for key, value := range found.Data {
		data[key] = []byte(value)
	}
	return pick("ConfigMap "+name, data, items, optional, mode)
}

func (p *pod) secretFiles(name string, items []corev1.KeyToPath, optional *bool, mode os.FileMode) (map[string]volumeFile, error) {
	found, err := p.secret(name)
	if apierrors.IsNotFound(err) && first(false, optional) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	return pick("Secret "+name, found.Data, items, optional, mode)
}

// pick makes files of all keys, or of the items' keys.
func pick(owner string, data map[string][]byte, items []corev1.KeyToPath, optional *bool, mode os.FileMode) (map[string]volumeFile, error) {
	files := map[string]volumeFile{}
	if len(items) == 0 {
		for key, value := range data {
			files[key] = volumeFile{value, mode, -1}
		}
	}
	for _, item := range items {
		value, ok := data[item.Key]
		switch {
		case ok:
			own := mode
			if item.Mode != nil {
				own = os.FileMode(*item.Mode)
			}
			files[item.Path] = volumeFile{value, own, -1}
		case !first(false, optional):
			return nil, fmt.Errorf("%s has no key %s", owner, item.Key)
		}
	}
	return files, nil
}

func (p *pod) downwardFiles(items []corev1.DownwardAPIVolumeFile, mode os.FileMode) (map[string]volumeFile, error) {
	files := map[string]volumeFile{}
	facts := p.facts()
	for _, item := range items {
		var value string
		var err error
		if item.FieldRef != nil {
			value, err = facts.field(item.FieldRef.FieldPath)
		} else {
			value, err = facts.resource(item.ResourceFieldRef, nil)
		}
		if err != nil {
			return nil, err
		}
		files[item.Path] = volumeFile{[]byte(value), mode, -1}
	}
	return files, nil
}

// mode is that of a volume's files; a group that owns the volume may always read them.
func (p *pod) mode(wanted *int32) os.FileMode {
	mode := os.FileMode(first(int32(0o644), wanted))
	if p.group() >= 0 {
		mode |= 0o440
	}
	return mode
}

// token is one service-account token in use, by the audience, and when to ask for a new one.
type token struct {
	text  string
	renew time.Time
}

func (p *pod) tokenFile(ctx context.Context, source *corev1.ServiceAccountTokenProjection) (map[string]volumeFile, error) {
	key := fmt.Sprintf("%s %d", source.Audience, first(3600, source.ExpirationSeconds))
	held, ok := p.tokens[key]
	if !ok || time.Now().After(held.renew) {
		fresh, err := p.requestToken(ctx, source)
		if err != nil {
			return nil, err
		}
		held = fresh
		p.tokens[key] = held
	}
	file := volumeFile{data: []byte(held.text), mode: 0o600, uid: -1}
	if p.group() >= 0 {
		file.mode = 0o640
	} else if uid, one := p.onlyUser(); one {
		file.uid = int(uid)
	} else {
		file.mode = 0o644
	}
	return map[string]volumeFile{source.Path: file}, nil
}

func (p *pod) requestToken(ctx context.Context, source *corev1.ServiceAccountTokenProjection) (token, error) {
	ctx, cancel := context.WithTimeout(ctx, requestDeadline)
	defer cancel()
	request := &authv1.TokenRequest{Spec: authv1.TokenRequestSpec{
		ExpirationSeconds: source.ExpirationSeconds,
		BoundObjectRef:    &authv1.BoundObjectReference{Kind: "Pod", APIVersion: "v1", Name: p.name, UID: p.object.UID},
	}}
	if source.Audience != "" {
		request.Spec.Audiences = []string{source.Audience}
	}
	account := p.object.Spec.ServiceAccountName
	answer, err := p.agent.client.CoreV1().ServiceAccounts(p.namespace).CreateToken(ctx, account, request, metav1.CreateOptions{})
	if err != nil {
		return token{}, fmt.Errorf("token of service account %s: %w", account, err)
	}
	lifetime := time.Until(answer.Status.ExpirationTimestamp.Time)
	return token{text: answer.Status.Token, renew: time.Now().Add(lifetime * 4 / 5)}, nil
}

// onlyUser is the user of all containers, where they are run by one.
func (p *pod) onlyUser() (int64, bool) {
	facts := p.facts()
	containers := append(append([]corev1.Container{}, p.object.Spec.InitContainers...), p.object.Spec.Containers...)
	uid := facts.uid(&containers[0])
	for i := range containers {
		if facts.uid(&containers[i]) != uid {
			return 0, false
		}
	}
	return uid, true
}
