// SPDX-License-Identifier: Apache-2.0

package flowlog

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/kubernetes-sigs/blixt/operator/observe"
)

// writeLines writes each record that comes as a line of JSON until ctx ends, and then
// what has come. It follows the memory as anybody does: if the writer is slow, the memory
// forgets first, and nobody waits.
func (l *Log) writeLines(ctx context.Context) {
	at := place{}
	copied := make([]entry, chunk)
	failing := false
	for ended := false; !ended; {
		select {
		case <-ctx.Done():
			ended = true
		case <-l.memory.wait(at):
		}
		end := l.memory.end()
		for p := range parts {
			for {
				n, missed := l.memory.next(p, &at, end[p], copied)
				l.unsaid.Add(missed)
				if n == 0 {
					break
				}
				err := l.writeBatch(copied[:n])
				if err != nil {
					l.unsaid.Add(uint64(n))
				}
				if err != nil && !failing {
					l.o.Log.Error("write records of flows", "error", err)
				}
				failing = err != nil
			}
		}
	}
}

// writeBatch writes entries by one call: a line is not cut by what others write.
func (l *Log) writeBatch(all []entry) error {
	var text []byte
	for i := range all {
		line, err := Line(l.record(&all[i]))
		if err != nil {
			return fmt.Errorf("encode record: %w", err)
		}
		text = append(text, line...)
	}
	_, err := l.o.Lines.Write(text)
	return err
}

// Line returns a record as a line of JSON.
func Line(r *observe.Record) ([]byte, error) {
	text, err := json.Marshal(r)
	return append(text, '\n'), err
}
