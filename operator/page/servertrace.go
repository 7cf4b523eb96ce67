// SPDX-License-Identifier: Apache-2.0

package page

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/kubernetes-sigs/blixt/operator/observe"
)

// Limits of traces: each reads the tables of all nodes.
const (
	mostTraces   = 2 // at a time
	traceTimeout = 10 * time.Second
	// mostAnswers is how many nodes an answer has, and largestAnswers its size in bytes.
	mostAnswers    = 250
	largestAnswers = 4 << 20
)

// traced is the answer of /trace.
type traced struct {
	Answers []tracedBy `json:"answers"`
	// Unanswered says why nodes have not answered; "": it is not known which.
	Unanswered map[string]string `json:"unanswered,omitempty"`
	// More is how many answers are left out.
	More int `json:"more,omitempty"`
}

// tracedBy is what a node says.
type tracedBy struct {
	Node   string          `json:"node"`   // "": the host
	Answer json.RawMessage `json:"answer"` // trace.Result
}

// serveTrace asks the nodes where a packet would go.
func (h *Handler) serveTrace(w http.ResponseWriter, r *http.Request) *problem {
	rights, p := h.rights(r)
	if p != nil {
		return p
	}
	if !rights.Trace {
		return problemf(http.StatusForbidden, "%s may not trace packets", rights.User)
	}
	q, err := parseTrace(r.URL.RawQuery)
	if err != nil {
		return problemf(http.StatusBadRequest, "%v", err)
	}
	select {
	case h.traces <- struct{}{}:
	default:
		return problemf(http.StatusServiceUnavailable, "%d packets are being traced already: try again", mostTraces)
	}
	type result struct {
		traced
		err error
	}
	done := make(chan result, 1)
	go func() { // a source that hangs keeps its place, and no request
		defer func() { <-h.traces }()
		t, err := guarded(r.Context(), func(ctx context.Context) (traced, error) { return h.trace(ctx, q) })
		done <- result{t, err}
	}()
	select {
	case t := <-done:
		if t.err != nil {
			h.Log.Warn("a packet cannot be traced", "error", t.err)
			text, _, _ := strings.Cut(t.err.Error(), "\n")
			return problemf(http.StatusServiceUnavailable, "%s", text)
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(t.traced) // who has gone needs no error
	case <-time.After(traceTimeout + traceTimeout/4):
		return problemf(http.StatusServiceUnavailable, "there is no answer within %s", traceTimeout)
	case <-r.Context().Done():
	case <-h.closing.Done():
	}
	return nil
}

// trace asks. It returns an error if there is no answer of any node.
func (h *Handler) trace(ctx context.Context, q observe.TraceQuery) (t traced, err error) {
	ctx, cancel := context.WithTimeout(ctx, traceTimeout)
	defer cancel()
	t.Answers = []tracedBy{}
	size := 0
	err = h.Source.Ask(ctx, observe.Query{Trace: &q}, func(node string, piece json.RawMessage) error {
		if size += len(piece); len(t.Answers) >= mostAnswers || size > largestAnswers {
			t.More++
			return nil
		}
		t.Answers = append(t.Answers, tracedBy{node, piece})
		return nil
	})
	if failed, is := errors.AsType[*observe.NodesError](err); is {
		t.Unanswered, err = failed.Reasons, nil
	} else if err != nil && len(t.Answers) > 0 {
		t.Unanswered, err = map[string]string{"": err.Error()}, nil
	}
	return t, err
}

// parseTrace parses the query of a URL: what blixt trace has as arguments and flags.
func parseTrace(query string) (q observe.TraceQuery, err error) {
	values, err := url.ParseQuery(query)
	if err != nil {
		return q, err
	}
	q.Protocol = "tcp"
	for key, all := range values {
		value := strings.TrimSpace(all[0])
		if len(all) > 1 || len(value) > 100 {
			return q, fmt.Errorf("parameter %q: want one value of at most 100 bytes", key)
		}
		switch key {
		case "client":
			q.Client, err = parseEnd(value)
		case "server":
			q.Server, err = parseEnd(value)
		case "protocol":
			if q.Protocol = strings.ToLower(value); q.Protocol != "tcp" && q.Protocol != "udp" {
				err = errors.New("want tcp or udp")
			}
		case "interface":
			q.Interface = value
		case "bytes":
			q.Bytes, err = strconv.Atoi(value)
		default:
			err = errors.New("it is not known")
		}
		if err != nil {
			return q, fmt.Errorf("parameter %q: %w", key, err)
		}
	}
	if !q.Client.IsValid() || !q.Server.IsValid() {
		return q, errors.New("want client and server as ADDRESS:PORT, of IPv6 [ADDRESS]:PORT")
	}
	q.Client = netip.AddrPortFrom(q.Client.Addr().Unmap(), q.Client.Port())
	q.Server = netip.AddrPortFrom(q.Server.Addr().Unmap(), q.Server.Port())
	return q, nil
}

// parseEnd parses the address and the port of a client or a server.
func parseEnd(text string) (netip.AddrPort, error) {
	end, err := netip.ParseAddrPort(text)
	if err != nil {
		return end, fmt.Errorf("%q: want an address and a port, such as 192.0.2.10:80 or [2001:db8::1]:53", text)
	}
	return end, nil
}
