package trials

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// load asks a gateway questions, from several clients, until it is told to end.
type load struct {
	answered atomic.Int64
	cut      atomic.Int64
	killed   bool
	ctx      context.Context
	cancel   context.CancelFunc
	clients  sync.WaitGroup
	mutex    sync.Mutex
	failures []string
}

// clients of a load; half of them open a connection for each question.
const clients = 8

// startLoad asks model at address; the answer to each question must have the status 200. Only if servers are
// killed meanwhile an answer that had begun may be cut: nobody can say that again.
func startLoad(ctx context.Context, address, model string, killed bool) *load {
	l := &load{killed: killed}
	l.ctx, l.cancel = context.WithCancel(ctx)
	question := fmt.Appendf(nil, `{"model":%q,"max_tokens":5,"messages":[{"role":"user","content":"Hello"}]}`, model)
	for number := range clients {
		transport := &http.Transport{DisableKeepAlives: number%2 == 0}
		client := &http.Client{Transport: transport, Timeout: 30 * time.Second}
		l.clients.Go(func() {
			defer transport.CloseIdleConnections()
			for l.ctx.Err() == nil {
				l.ask(client, "http://"+address+"/v1/chat/completions", question)
			}
		})
	}
	return l
}

func (l *load) ask(client *http.Client, url string, question []byte) {
	response, err := client.Post(url, "application/json", bytes.NewReader(question))
	if err != nil {
		l.fail(err.Error())
		return
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	switch {
	case err != nil:
		l.fail("in the answer: " + err.Error())
	case response.StatusCode == http.StatusOK:
		l.answered.Add(1)
	case l.killed && begun(body):
		l.cut.Add(1)
	default:
		l.fail(fmt.Sprintf("status %d: %s", response.StatusCode, body))
	}
}

// begun says whether an error is that of a server that failed in the middle of its answer.
func begun(body []byte) bool {
	var told struct{ Error struct{ Code string } }
	_ = json.Unmarshal(body, &told) // without a code it is no error that may be
	return slices.Contains([]string{"reset", "stream_cut"}, told.Error.Code)
}

func (l *load) fail(what string) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	l.failures = append(l.failures, time.Now().Format("15:04:05.000 ")+what)
}

// end stops asking, and says an error if any question failed or hardly any was asked.
func (l *load) end() error {
	l.cancel()
	l.clients.Wait()
	if len(l.failures) > 0 {
		shown := l.failures[:min(len(l.failures), 5)]
		return fmt.Errorf("%d of %d questions failed, such as\n    %s", len(l.failures), l.answered.Load()+int64(len(l.failures)), strings.Join(shown, "\n    "))
	}
	if answered := l.answered.Load(); answered < 50 {
		return fmt.Errorf("only %d questions were answered: no load", answered)
	}
	cut := ""
	if l.killed {
		cut = fmt.Sprintf(" but %d that killed servers had begun to answer", l.cut.Load())
	}
	fmt.Printf("        %d questions, none failed%s\n", l.answered.Load(), cut)
	return nil
}

// processes are those of the cluster whose command line has all the words, in the Pod of an address
// if one is given.
func processes(ip string, words ...string) ([]int, error) {
	found, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, path := range found {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		argv := strings.Split(strings.TrimRight(string(text), "\x00"), "\x00")
		has := func(word string) bool { return slices.Contains(argv, word) }
		if slices.ContainsFunc(words, func(word string) bool { return !has(word) }) {
			continue
		}
		if ip != "" {
			routes, err := os.ReadFile(filepath.Join(filepath.Dir(path), "net/fib_trie"))
			if err != nil || !strings.Contains(string(routes), "|-- "+ip+"\n") {
				continue
			}
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err != nil {
			return nil, err
		}
		pids = append(pids, pid)
	}
	return pids, nil
}

// killAll kills processes without any grace; there must be some.
func killAll(ip string, words ...string) error {
	pids, err := processes(ip, words...)
	if err != nil {
		return err
	}
	if len(pids) == 0 {
		return fmt.Errorf("no process has %q in its command line", words)
	}
	for _, pid := range pids {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			return fmt.Errorf("kill %d: %w", pid, err)
		}
	}
	return nil
}
