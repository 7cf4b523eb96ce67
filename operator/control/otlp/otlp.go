// SPDX-License-Identifier: Apache-2.0

// Package otlp sends the nodes' flow records to a collector of OpenTelemetry, as logs.
//
// What waits for the collector waits where it is: the operator holds a batch and what
// the fleet's windows hold, and nodes remember the rest. A record is lost when its node has to
// forget it, or when the collector refuses it; both are counted.
package otlp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlplog/otlploggrpc"
	sdk "go.opentelemetry.io/otel/sdk/log"
	"go.opentelemetry.io/otel/sdk/resource"
	collector "go.opentelemetry.io/proto/otlp/collector/logs/v1"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/kubernetes-sigs/blixt/operator/observe"
)

const (
	maxBatch      = 512
	maxBatchBytes = 1 << 20 // collectors take messages of 4 MiB by default
	flushEvery    = time.Second
	exportTimeout = 10 * time.Second
	firstPause    = time.Second
	longestPause  = 30 * time.Second
)

// Fleet is where records come from.
type Fleet interface {
	Follow(ctx context.Context, q observe.FlowsQuery, got func(node string, piece json.RawMessage) error, lost func(pieces int)) error
}

// Options of an Exporter.
type Options struct {
	// Endpoint is the collector's, as http://host:4317 or https://host:4317. The environment
	// variables of OTLP exporters add to it, such as OTEL_EXPORTER_OTLP_HEADERS and
	// OTEL_EXPORTER_OTLP_CERTIFICATE.
	Endpoint   string
	Registerer prometheus.Registerer
	Log        *slog.Logger
}

// Exporter sends records.
type Exporter struct {
	o        Options
	exporter *otlploggrpc.Exporter
	logger   logger
	batch    []sdk.Record
	bytes    int
	answered bool // the collector has taken the last request, but for
	rejected int
	failing  bool
	timeout  time.Duration
	pause    func(context.Context, time.Duration)

	exported, missed, refused prometheus.Counter
}

// New returns an Exporter. It connects when there is something to send.
func New(o Options) (*Exporter, error) {
	e := &Exporter{o: o, timeout: exportTimeout, pause: sleep}
	var err error
	e.exporter, err = otlploggrpc.New(context.Background(),
		otlploggrpc.WithEndpointURL(o.Endpoint), otlploggrpc.WithTimeout(exportTimeout), otlploggrpc.WithRetry(otlploggrpc.RetryConfig{}),
		otlploggrpc.WithDialOption(grpc.WithChainUnaryInterceptor(e.countRejected)))
	if err != nil {
		return nil, fmt.Errorf("OTLP endpoint %s: %w", o.Endpoint, err)
	}
	e.logger = sdk.NewLoggerProvider(sdk.WithProcessor(keeper{e}), sdk.WithAttributeCountLimit(-1), sdk.WithResource(resource.NewSchemaless(
		attribute.String("service.name", "blixt"),
	))).Logger("github.com/kubernetes-sigs/blixt")

	records := newCounter()
	e.exported, e.missed, e.refused = records.WithLabelValues("exported"), records.WithLabelValues("missed"), records.WithLabelValues("refused")
	if o.Registerer != nil {
		if err := o.Registerer.Register(records); err != nil {
			return nil, err
		}
	}
	return e, nil
}

func newCounter() *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "blixt_flow_export_records_total",
		Help: "Flow records for a collector of OpenTelemetry: exported, missed (a node had to forget them before the collector took them), or refused by the collector.",
	}, []string{"result"})
}

// RegisterMetrics registers what New does, where nothing is exported.
func RegisterMetrics(r prometheus.Registerer) { r.MustRegister(newCounter()) }

// Run sends what nodes record, from when this replica leads until ctx ends. What has ended
// before is not sent, but for the newest record of each node, nor what ends while a node's
// agent has no operator.
func (e *Exporter) Run(ctx context.Context, elected <-chan struct{}, fleet Fleet) {
	select {
	case <-ctx.Done():
		return
	case <-elected:
	}
	records := make(chan *observe.Record, maxBatch)
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		e.send(ctx, records)
	}()
	for ctx.Err() == nil {
		err := fleet.Follow(ctx, observe.FlowsQuery{Last: 1}, func(node string, text json.RawMessage) error {
			return e.receive(ctx, node, text, records)
		}, func(n int) { e.missed.Add(float64(n)) })
		if ctx.Err() == nil { // it does not lead yet
			e.o.Log.Debug("flow records are not followed", "error", err)
			sleep(ctx, firstPause)
		}
	}
	close(records)
	<-sent
}

// piece is what nodes send.
type piece struct {
	*observe.Record
	Memory *struct {
		Missed uint64 `json:"missed"`
	} `json:"memory"`
}

func (e *Exporter) receive(ctx context.Context, node string, text json.RawMessage, records chan<- *observe.Record) error {
	var p piece
	switch err := json.Unmarshal(text, &p); {
	case err != nil:
		e.missed.Inc()
		return nil
	case p.Memory != nil:
		e.missed.Add(float64(p.Memory.Missed))
		return nil
	case p.Record == nil || p.Event == observe.EventOpen:
		return nil
	}
	p.Node = node // who has authenticated, whatever the record says
	select {
	case records <- p.Record:
		return nil
	case <-ctx.Done():
		e.missed.Inc()
		return ctx.Err()
	}
}

// send exports batches until there are no more records.
func (e *Exporter) send(ctx context.Context, records <-chan *observe.Record) {
	tick := time.NewTicker(flushEvery)
	defer tick.Stop()
	for {
		select {
		case r, more := <-records:
			if !more {
				e.flush(ctx)
				return
			}
			e.emit(r)
			if len(e.batch) >= maxBatch || e.bytes >= maxBatchBytes {
				e.flush(ctx)
			}
		case <-tick.C:
			e.flush(ctx)
		}
	}
}

// flush exports the batch, again and again until the collector takes it or refuses it.
// When ctx has ended it tries once.
func (e *Exporter) flush(ctx context.Context) {
	if len(e.batch) == 0 {
		return
	}
	for pause := firstPause; ; pause = min(2*pause, longestPause) {
		e.answered, e.rejected = false, 0
		attempt, cancel := context.WithTimeout(context.WithoutCancel(ctx), e.timeout)
		err := e.exporter.Export(attempt, e.batch)
		cancel()
		rejected := min(e.rejected, len(e.batch))
		if retryable(err) && ctx.Err() == nil {
			e.report(err)
			e.pause(ctx, pause)
			continue
		}
		if !e.answered {
			rejected = len(e.batch)
		}
		e.report(err)
		e.refused.Add(float64(rejected))
		e.exported.Add(float64(len(e.batch) - rejected))
		clear(e.batch)
		e.batch, e.bytes = e.batch[:0], 0
		return
	}
}

// report logs when exports begin to fail, and when they succeed again.
func (e *Exporter) report(err error) {
	switch {
	case err != nil && !e.failing:
		e.o.Log.Warn("flow records cannot be exported: nodes remember what they have room for", "endpoint", e.o.Endpoint, "error", err)
	case err == nil && e.failing:
		e.o.Log.Info("flow records are exported again", "endpoint", e.o.Endpoint)
	}
	e.failing = err != nil
}

// retryable reports whether the same request may succeed later
// (https://opentelemetry.io/docs/specs/otlp/#failures).
func retryable(err error) bool {
	if errors.Is(err, context.DeadlineExceeded) {
		return true
	}
	s, is := status.FromError(err)
	if err == nil || !is {
		return false
	}
	switch s.Code() {
	case codes.Canceled, codes.DeadlineExceeded, codes.Aborted, codes.OutOfRange, codes.Unavailable, codes.DataLoss:
		return true
	case codes.ResourceExhausted:
		for _, d := range s.Details() {
			if _, is := d.(*errdetails.RetryInfo); is {
				return true
			}
		}
	}
	return false
}

// countRejected counts the records of a request that the collector has refused.
func (e *Exporter) countRejected(ctx context.Context, method string, request, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, options ...grpc.CallOption) error {
	err := invoke(ctx, method, request, reply, conn, options...)
	if r, is := reply.(*collector.ExportLogsServiceResponse); is && err == nil {
		e.answered, e.rejected = true, int(max(r.GetPartialSuccess().GetRejectedLogRecords(), 0))
	}
	return err
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
