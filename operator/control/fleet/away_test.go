// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/agent"
)

// A new leader has another epoch, whatever its sequence. A leader whose etcd
// was restored has published less than agents hold.
func TestNewLeader(t *testing.T) {
	first := newOperator(t, "", nil)
	n := newNode(t, first, "n1", nil)
	for i := range 5 {
		first.serves(t, "n1", first.Publish(web(i)), web(i))
	}
	first.Lead(2) // the same process again
	v := first.Publish(web(7))
	if v != (lb.Version{Epoch: 2, Sequence: 1}) {
		t.Errorf("version %+v", v)
	}
	first.serves(t, "n1", v, web(7))
	first.stop()
	restored := newOperator(t, first.address, first.certificates.Load())
	restored.Lead(3)
	restored.serves(t, "n1", restored.Publish(web(2)), web(2))
	if err := n.Ready(); err != nil {
		t.Error(err)
	}
	// An epoch that was used before leads nowhere, and is reported.
	restored.serves(t, "n1", restored.Publish(web(3)), web(3))
	restored.Lead(3)
	eventually(t, func() string {
		if restored.refusedFor(ReasonFalseAck) == 0 {
			return "an agent with a later state of the same epoch is let in"
		}
		return ""
	})
	restored.Lead(4)
	restored.serves(t, "n1", restored.Publish(web(1)), web(1))
}

// An operator that does not lead lets no agent in; once it leads, it does.
func TestFollower(t *testing.T) {
	o := newFollower(t, "", nil)
	text := &logged{}
	newNode(t, o, "n1", func(o *agent.Options) { o.Log = textLog(text) })
	eventually(t, func() string {
		if text.count("this operator is not the leader") == 0 {
			return "the agent is not sent away"
		}
		return ""
	})
	if r := o.Reports(); len(r) > 0 {
		t.Errorf("the follower has let an agent in: %+v", r)
	}
	if v := o.Publish(web(1)); v != (lb.Version{}) {
		t.Errorf("the follower has published %+v", v)
	}
	o.Lead(1)
	o.serves(t, "n1", o.Publish(web(3)), web(3))
}

// The kernel continues to serve while the operator is away, and gets the
// changes when it is back.
func TestOperatorAway(t *testing.T) {
	o := newOperator(t, "", nil)
	text := &logged{}
	n := newNode(t, o, "n1", func(c *agent.Options) { c.Log = textLog(text) })
	o.serves(t, "n1", o.Publish(web(3)), web(3))
	o.stop()
	eventually(t, func() string {
		if text.count("the operator is away") == 0 {
			return "the agent does not say that the operator is away"
		}
		return ""
	})
	before, _ := n.fake.Config()
	if err := n.Ready(); err != nil {
		t.Error(err)
	}
	late := newNode(t, o, "n2", nil)
	eventually(t, func() string {
		if err := late.Ready(); err == nil || !strings.Contains(err.Error(), "has not been reached") {
			return fmt.Sprintf("an agent that has never reached the operator is ready: %v", err)
		}
		return ""
	})
	if after, _ := n.fake.Config(); after != before {
		t.Errorf("maps have changed: %+v", after)
	}
	back := newOperator(t, o.address, o.certificates.Load())
	back.Lead(2)
	v := back.Publish(web(4))
	back.serves(t, "n1", v, web(4))
	back.serves(t, "n2", v, web(4))
}

// Each side detects within 20 seconds that the other is silent.
func TestSilence(t *testing.T) {
	t.Parallel()
	o := newOperator(t, "", nil)
	p := newProxy(t, o.address)
	text := &logged{}
	newNode(t, o, "n1", func(c *agent.Options) { c.Operator, c.Log = p.operator(), textLog(text) })
	o.serves(t, "n1", o.Publish(web(3)), web(3))
	p.freeze()
	began := time.Now()
	eventually(t, func() string {
		if r, _ := o.report("n1", "blue"); r.Connected {
			return "the operator does not notice a silent agent"
		}
		return ""
	})
	eventually(t, func() string {
		if text.count("the operator is away") == 0 {
			return "the agent does not notice a silent operator"
		}
		return ""
	})
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("noticed after %v", took)
	}
	p.thaw()
	o.serves(t, "n1", o.Publish(web(4)), web(4))
}
