// SPDX-License-Identifier: Apache-2.0

package page

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/netip"
	"sync"
	"time"
)

// Limits of streams.
const (
	mostStreams = 32
	// clientStreams are those of one client. How many people an address of this machine
	// stands for is not known: port forwarding and proxies have one.
	clientStreams = 16
	// retryAfter is when a browser connects again, in milliseconds.
	retryAfter = "2000"
)

// limits are those in time of a stream.
type limits struct {
	// streamLasts is after which time a browser has to connect again: its rights are
	// checked then.
	streamLasts time.Duration
	// aliveEvery is how often something is sent: proxies end connections that are silent.
	aliveEvery time.Duration
	// writeTimeout is how long a reader may take for an event.
	writeTimeout time.Duration
}

var defaultLimits = limits{10 * time.Minute, 15 * time.Second, 10 * time.Second}

// streams counts those that are open. Its zero value has none.
type streams struct {
	mu  sync.Mutex
	all int
	of  map[netip.Prefix]int
}

// enter counts another one until leave is called. It returns false if there are too many.
func (s *streams) enter(client netip.Prefix) (leave func(), ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all >= mostStreams || s.of[client] >= clientStreams && !client.Addr().IsLoopback() {
		return nil, false
	}
	if s.of == nil {
		s.of = map[netip.Prefix]int{}
	}
	s.all++
	s.of[client]++
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.all--
		if s.of[client]--; s.of[client] == 0 {
			delete(s.of, client)
		}
	}, true
}

// begin checks a request for Views, and has it join their readers until leave is called.
func (h *Handler) begin(r *http.Request) (reader *reader, leave func(), p *problem) {
	rights, p := h.rights(r)
	if p != nil {
		return nil, nil, p
	}
	selection, err := ParseSelection(r.URL.RawQuery)
	if err != nil {
		return nil, nil, problemf(http.StatusBadRequest, "%v", err)
	}
	exit, ok := h.streams.enter(clientOf(r))
	if !ok {
		return nil, nil, problemf(http.StatusServiceUnavailable, "too many look at this page already: %d may, and %d of one address; close a tab", mostStreams, clientStreams)
	}
	reader, stop := h.watch.join(viewKey{selection, rights.Flows})
	return reader, func() { stop(); exit() }, nil
}

// serveView answers with one View: for scripts.
func (h *Handler) serveView(w http.ResponseWriter, r *http.Request) *problem {
	reader, leave, p := h.begin(r)
	if p != nil {
		return p
	}
	defer leave()
	select {
	case e := <-reader.events:
		if e.name != eventView {
			var why string
			_ = json.Unmarshal(e.data, &why) // it is a string
			return problemf(http.StatusServiceUnavailable, "%s", why)
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(append(e.data, '\n')) // who has gone needs no error
	case <-r.Context().Done():
	case <-h.closing.Done():
	}
	return nil
}

// serveEvents answers with server-sent events until the browser goes, or has to come again.
func (h *Handler) serveEvents(w http.ResponseWriter, r *http.Request) *problem {
	reader, leave, p := h.begin(r)
	if p != nil {
		return p
	}
	defer leave()
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("X-Accel-Buffering", "no") // nginx
	w.WriteHeader(http.StatusOK)
	if r.Method == http.MethodHead {
		return nil
	}
	ctx, cancel := context.WithTimeout(r.Context(), h.streamLasts)
	defer cancel()
	defer context.AfterFunc(h.closing, cancel)()
	out := &stream{http.NewResponseController(w), w, h.writeTimeout}
	_ = out.SetReadDeadline(time.Time{}) // the server's is for requests; every connection has one
	alive := time.NewTicker(h.aliveEvery)
	defer alive.Stop()
	err := out.send("retry: ", retryAfter)
	for err == nil {
		select {
		case <-ctx.Done():
			return nil
		case e := <-reader.events:
			err = out.send("event: ", e.name, "\ndata: ", string(e.data))
			alive.Reset(h.aliveEvery)
		case <-alive.C:
			err = out.send(":")
		}
	}
	return nil // whoever has gone, or was too slow, needs no error
}

// stream is a stream of server-sent events.
type stream struct {
	*http.ResponseController
	to      io.Writer
	timeout time.Duration
}

// send sends an event, of lines. It returns an error if the reader does not take it.
func (s *stream) send(text ...string) error {
	if err := s.SetWriteDeadline(time.Now().Add(s.timeout)); err != nil {
		return err
	}
	for _, part := range append(text, "\n\n") {
		if _, err := io.WriteString(s.to, part); err != nil {
			return err
		}
	}
	return s.Flush()
}
