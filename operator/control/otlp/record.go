// SPDX-License-Identifier: Apache-2.0

package otlp

import (
	"context"
	"math"
	"net/netip"
	"strings"
	"time"

	"go.opentelemetry.io/otel/log"
	sdk "go.opentelemetry.io/otel/sdk/log"

	"github.com/kubernetes-sigs/blixt/operator/observe"
)

type logger = log.Logger

// keeper is a processor that puts records into the batch.
type keeper struct{ e *Exporter }

// Enabled implements sdk.Processor.
func (keeper) Enabled(context.Context, sdk.EnabledParameters) bool { return true }

// OnEmit implements sdk.Processor.
func (k keeper) OnEmit(_ context.Context, r *sdk.Record) error {
	k.e.batch = append(k.e.batch, r.Clone())
	return nil
}

// Shutdown implements sdk.Processor.
func (keeper) Shutdown(context.Context) error { return nil }

// ForceFlush implements sdk.Processor.
func (keeper) ForceFlush(context.Context) error { return nil }

// emit puts a record into the batch, by the attributes of OpenTelemetry's conventions
// for network flows, where there are any.
func (e *Exporter) emit(r *observe.Record) {
	var out log.Record
	out.SetEventName("blixt.flow")
	out.SetTimestamp(r.Time)
	out.SetObservedTimestamp(time.Now())
	a := attributes{}
	if r.Event == observe.EventRejected || r.Event == observe.EventDropped {
		out.SetSeverity(log.SeverityWarn)
		a.text("error.type", r.Reason)
	} else {
		out.SetSeverity(log.SeverityInfo)
	}
	out.SetSeverityText(map[bool]string{true: "WARN", false: "INFO"}[out.Severity() == log.SeverityWarn])
	body := r.Text(time.UTC)
	out.SetBody(log.StringValue(body))

	a.endpoint("client", &r.Client)
	a.endpoint("server", &r.Server)
	a.text("network.transport", r.Protocol)
	a.text("network.type", family(r.Server.Address))
	a.text("k8s.node.name", r.Node)
	a.text("blixt.flow.event", string(r.Event))
	a.text("blixt.flow.reason", r.Reason)
	a.text("blixt.flow.ended_by", r.EndedBy)
	if !r.Start.IsZero() {
		a.text("blixt.flow.start", r.Start.UTC().Format(time.RFC3339Nano))
	}
	a.seconds("blixt.flow.duration", r.Duration)
	a.seconds("blixt.flow.connect", r.Connect)
	a.seconds("blixt.flow.rtt", r.RTT)
	a.traffic("in", r.In)
	a.traffic("out", r.Out)
	a.endpoint("blixt.snat", r.SNAT)
	a.endpoint("blixt.backend", r.Backend)
	a.name("blixt.gateway", r.Gateway)
	a.text("blixt.listener.name", r.Listener)
	if kind, name, found := strings.Cut(r.Route, "/"); found {
		a.text("blixt.route.kind", kind)
		a.name("blixt.route", name)
	}
	a.name("blixt.service", r.Service)
	a.text("network.interface.name", r.Interface)
	a.count("blixt.flow.sampled", uint64(r.Sampled))
	a.text("blixt.flow.packet", r.Packet)
	out.AddAttributes(a...)
	for _, kv := range a {
		e.bytes += len(kv.Key) + 16
		if kv.Value.Kind() == log.KindString {
			e.bytes += len(kv.Value.AsString())
		}
	}
	e.bytes += len(body)
	e.logger.Emit(context.Background(), out)
}

type attributes []log.KeyValue

func (a *attributes) text(key, value string) {
	if value != "" {
		*a = append(*a, log.String(key, value))
	}
}

func (a *attributes) count(key string, n uint64) {
	if n > 0 {
		*a = append(*a, log.Int64(key, int64(min(n, math.MaxInt64))))
	}
}

func (a *attributes) seconds(key string, s float64) {
	if s > 0 {
		*a = append(*a, log.Float64(key, s))
	}
}

func (a *attributes) endpoint(key string, e *observe.Endpoint) {
	if e == nil || !e.Address.IsValid() {
		return
	}
	a.text(key+".address", e.Address.String())
	a.count(key+".port", uint64(e.Port))
}

func (a *attributes) traffic(direction string, t *observe.Traffic) {
	if t != nil {
		a.count("blixt.flow.packets."+direction, t.Packets)
		a.count("blixt.flow.bytes."+direction, t.Bytes)
	}
}

// name adds namespace/name.
func (a *attributes) name(key, of string) {
	namespace, name, found := strings.Cut(of, "/")
	if !found {
		namespace, name = "", of
	}
	a.text(key+".namespace", namespace)
	a.text(key+".name", name)
}

func family(a netip.Addr) string {
	switch {
	case a.Is4():
		return "ipv4"
	case a.Is6():
		return "ipv6"
	}
	return ""
}
