package standalone

import (
	"time"

	"github.com/kubernetes-sigs/blixt/operator/datapath"
	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/loader"
)

type shim struct {
	m  *datapath.Maps
	im *datapath.Image
}

func newShim(l *loader.Loader) (*shim, error) {
	m, err := datapath.New(l.Maps())
	if err != nil {
		return nil, err
	}
	c, err := m.Config()
	if err != nil {
		return nil, err
	}
	c.SnatMin, c.SnatMax = 11000, 29999
	if err := m.SetConfig(c); err != nil {
		return nil, err
	}
	im, err := datapath.Read(m, time.Now())
	return &shim{m, im}, err
}

type shimResult struct{ datapath.Written }

func (r shimResult) Changed() bool { return r.Written != datapath.Written{} }

func (s *shim) Apply(state lb.State) (shimResult, error) {
	p, err := datapath.NewPlan(s.im, state, time.Now())
	if err != nil {
		return shimResult{}, err
	}
	w, err := datapath.Apply(s.m, s.im, p, time.Now)
	return shimResult{w}, err
}
