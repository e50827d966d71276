// Package audit reads the API server's audit log to find out as whom our Pods speak, and whether they ask
// for what they may not have.
package audit

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Pod is one that had an address, which no other Pod ever gets.
type Pod struct {
	IP, Namespace, Name, Account string
	Images                       []string
}

// Rule says which Pods are ours and as whom they speak.
type Rule struct {
	Image     string // part of the name of our image
	Namespace string // of the controller; whatever else runs our image is a proxy, which asks for nothing
	Account   string // its ServiceAccount
	// What gives the account its rights: from the deletion of one of these on it may be refused.
	Rights []string
}

// event is one line of the log, as far as it matters.
type event struct {
	Verb             string
	RequestURI       string
	User             struct{ Username string }
	ImpersonatedUser *struct{ Username string }
	SourceIPs        []string
	UserAgent        string
	ObjectRef        struct{ Resource, Name string }
	ResponseStatus   struct{ Code int }
	Annotations      map[string]string
	At               time.Time `json:"requestReceivedTimestamp"`
}

// forbidden says whether the one who asked lacks the right. The status 403 has another meaning too: nothing
// is made any more in a namespace that is going.
func (e event) forbidden() bool {
	return e.ResponseStatus.Code == 401 || e.Annotations["authorization.k8s.io/decision"] == "forbid"
}

// Verdict is what the log says.
type Verdict struct {
	Asked int      // requests of the controller
	Wrong []string // each kind of request that must not be
}

// mostWrong bounds what a verdict tells.
const mostWrong = 10

func (v *Verdict) add(why string) {
	if len(v.Wrong) < mostWrong && !slices.Contains(v.Wrong, why) {
		v.Wrong = append(v.Wrong, why)
	}
}

// Files judges all files of a log, rotated ones too, by the Pods in another file.
func (r Rule) Files(log, pods string) (Verdict, error) {
	known, err := readPods(pods)
	if err != nil {
		return Verdict{}, err
	}
	parts, err := filepath.Glob(strings.TrimSuffix(log, ".log") + "*.log")
	if err != nil {
		return Verdict{}, err
	}
	var readers []io.Reader // in order of time: the name of what is written to now comes last
	for _, part := range parts {
		file, err := os.Open(part)
		if err != nil {
			return Verdict{}, err
		}
		defer file.Close()
		readers = append(readers, file)
	}
	return r.Judge(io.MultiReader(readers...), known)
}

func readPods(path string) ([]Pod, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	var pods []Pod
	for lines := json.NewDecoder(file); ; {
		var pod Pod
		if err := lines.Decode(&pod); err == io.EOF {
			return pods, nil
		} else if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		pods = append(pods, pod)
	}
}

// Judge reads a log and says what our Pods asked for.
func (r Rule) Judge(log io.Reader, pods []Pod) (Verdict, error) {
	ours := map[string]Pod{}
	for _, pod := range pods {
		if slices.ContainsFunc(pod.Images, func(image string) bool { return strings.Contains(image, r.Image) }) {
			ours[pod.IP] = pod
		}
	}
	var verdict Verdict
	revoked := false
	for lines := bufio.NewReaderSize(log, 1<<16); ; {
		line, err := lines.ReadBytes('\n')
		if err == io.EOF { // the last line is still being written, if there is anything of it
			return verdict, nil
		} else if err != nil {
			return verdict, err
		}
		var e event
		if err := json.Unmarshal(line, &e); err != nil {
			return verdict, fmt.Errorf("the audit log has a line that is none: %w", err)
		}
		revoked = r.revokes(e, revoked)
		r.judge(&verdict, e, ours, revoked)
	}
}

// revokes says whether the account has lost rights after an event.
func (r Rule) revokes(e event, before bool) bool {
	if !slices.Contains(r.Rights, e.ObjectRef.Resource+"/"+e.ObjectRef.Name) || e.ResponseStatus.Code >= 300 {
		return before
	}
	switch e.Verb {
	case "delete":
		return true
	case "create", "patch", "update":
		return false
	}
	return before
}

func (r Rule) judge(verdict *Verdict, e event, ours map[string]Pod, revoked bool) {
	account := "system:serviceaccount:" + r.Namespace + ":" + r.Account
	var from *Pod
	for _, ip := range e.SourceIPs {
		if pod, ok := ours[ip]; ok {
			from = &pod
		}
	}
	what := fmt.Sprintf("%s %s as %s, status %d", e.Verb, e.RequestURI, e.User.Username, e.ResponseStatus.Code)
	if e.ImpersonatedUser != nil {
		what += " for " + e.ImpersonatedUser.Username
	}
	switch {
	case from == nil && e.User.Username == account:
		verdict.add(fmt.Sprintf("somebody else uses the controller's account, from %v: %s", e.SourceIPs, what))
	case from == nil:
	case from.Namespace != r.Namespace || from.Account != r.Account:
		verdict.add(fmt.Sprintf("the proxy %s/%s asks the API server: %s", from.Namespace, from.Name, what))
	case e.User.Username != account || e.ImpersonatedUser != nil:
		verdict.add(fmt.Sprintf("the controller %s is another than %s: %s", from.Name, account, what))
	case e.forbidden() && !revoked:
		verdict.add(fmt.Sprintf("the controller %s may not do what it tried: %s", from.Name, what))
	default:
		verdict.Asked++
	}
}
