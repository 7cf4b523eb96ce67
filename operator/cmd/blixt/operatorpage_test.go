// SPDX-License-Identifier: Apache-2.0

package main

import (
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"github.com/kubernetes-sigs/blixt/operator/control/controller"
)

func TestFlagsOfTheOperatorsPage(t *testing.T) {
	for args, want := range map[string]string{
		"": "none",
		"--http-address=:8460 --http-host=a.example.com":                        "blixt-operator-page.ns.svc a.example.com",
		"--http-address=:8460 --http-tls-cert=c --http-tls-key=k":               "blixt-operator-page.ns.svc",
		"--http-address=:8460 --http-tls-cert=c":                                "needs both --http-tls-cert and --http-tls-key",
		"--http-tls-cert=c --http-tls-key=k":                                    "no page without --http-address",
		"--http-host=a.example.com":                                             "no page without --http-address",
		"--http-address=:8460 --http-host=a.example.com --http-host=localhost2": "blixt-operator-page.ns.svc a.example.com localhost2",
	} {
		var p operatorPage
		f := pflag.NewFlagSet("", pflag.ContinueOnError)
		p.add(f)
		if err := f.Parse(slices.DeleteFunc(strings.Split(args, " "), func(a string) bool { return a == "" })); err != nil {
			t.Fatal(err)
		}
		o := controller.ManagerOptions{}
		o.Release.Namespace = "ns"
		got := "none"
		if err := p.set(&o, slog.Default()); err != nil {
			got = err.Error()
		} else if o.Page != nil {
			got = strings.Join(o.PageNames, " ")
		}
		if !strings.Contains(got, want) {
			t.Errorf("%s: got %s, want %s", args, got, want)
		}
	}
}
