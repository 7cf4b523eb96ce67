// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"log/slog"

	"github.com/spf13/pflag"

	"github.com/kubernetes-sigs/blixt/operator/admin/clusterpage"
	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/control/controller"
)

// operatorPage is a page that the operator serves.
type operatorPage struct{ clusterpage.Operator }

func (p *operatorPage) add(f *pflag.FlagSet) {
	f.StringVar(&p.Address, "http-address", "", fmt.Sprintf("address of a page for browsers, such as :%d, over TLS, for those who have a token for audience %s and may get nodedataplanes/status; empty: there is none", v1alpha1.PagePort, v1alpha1.ObserveAudience))
	f.StringVar(&p.Cert, "http-tls-cert", "", "file with the certificate of the page and those that lead to its CA, in PEM (default: the certificate that agents are shown)")
	f.StringVar(&p.Key, "http-tls-key", "", "file with the key of --http-tls-cert, in PEM")
	f.StringArrayVar(&p.Hosts, "http-host", nil, "name by which browsers reach the page, besides Service "+v1alpha1.PageService+", localhost and addresses; may be repeated")
}

// set has an operator serve the page, if there is to be one.
func (p *operatorPage) set(o *controller.ManagerOptions, log *slog.Logger) error {
	switch {
	case p.Address == "" && (p.Cert != "" || p.Key != "" || len(p.Hosts) > 0):
		return errors.New("there is no page without --http-address: --http-tls-cert, --http-tls-key and --http-host are of no use")
	case (p.Cert == "") != (p.Key == ""):
		return errors.New("a page with a certificate of its own needs both --http-tls-cert and --http-tls-key")
	case p.Address == "":
		return nil
	}
	p.Hosts = append([]string{v1alpha1.PageService + "." + o.Release.Namespace + ".svc"}, p.Hosts...)
	p.Namespace, p.Version, p.Log = o.Release.Namespace, version(), log
	o.Page, o.PageNames = p.Run, p.Hosts
	return nil
}
