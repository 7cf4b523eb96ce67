// SPDX-License-Identifier: Apache-2.0

package top

import (
	"cmp"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/kubernetes-sigs/blixt/operator/phrase"
)

// Text prints the view for people.
func (v *View) Text(out io.Writer) error {
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	row := func(cells ...any) {
		for i, c := range cells {
			if i > 0 {
				fmt.Fprint(t, "\t")
			}
			fmt.Fprint(t, phrase.Printable(cmp.Or(fmt.Sprint(c), "-")))
		}
		fmt.Fprintln(t)
	}
	end := func() error {
		if err := t.Flush(); err != nil {
			return err
		}
		_, err := fmt.Fprintln(out)
		return err
	}
	if v.Frontends != nil {
		row("FRONTEND", "ROUTE", "FLOWS", "CONN/S", "REJECTED/S", "PACKETS/S IN", "OUT", "BYTES/S IN", "OUT")
		for _, f := range v.Frontends {
			row(f.Frontend, f.Route, f.Active, Number(f.Connections), Number(f.Rejected), Number(f.PacketsIn), Number(f.PacketsOut), Number(f.BytesIn), Number(f.BytesOut))
		}
		if err := end(); err != nil {
			return err
		}
	}
	if v.Backends != nil {
		row("BACKEND", "SERVICE", "FRONTEND", "STATE", "FLOWS", "CONN/S")
		for _, b := range v.Backends {
			row(b.Backend, b.Service, b.Frontend, b.StateText(), b.Active, Number(b.Connections))
		}
		if err := end(); err != nil {
			return err
		}
	}
	if v.Clients != nil {
		row("CLIENT", "FLOWS", "OPENING")
		for _, c := range v.Clients {
			row(c.Client, c.Flows, c.Opening)
		}
		if err := t.Flush(); err != nil {
			return err
		}
		if v.ClientsLost > 0 {
			fmt.Fprintf(out, "There are more clients than are counted: each number may be %d too small.\n", v.ClientsLost)
		}
	}
	return nil
}

// Number returns a rate in three digits, with a unit of thousands.
func Number(r Rate) string {
	if r == nil {
		return "-"
	}
	v, unit := *r, ""
	for _, u := range []string{"k", "M", "G", "T"} {
		if v < 999.5 {
			break
		}
		v, unit = v/1000, u
	}
	switch {
	case v == 0:
		return "0"
	case v < 9.995:
		return fmt.Sprintf("%.2f%s", v, unit)
	case v < 99.95:
		return fmt.Sprintf("%.1f%s", v, unit)
	}
	return fmt.Sprintf("%.0f%s", v, unit)
}
