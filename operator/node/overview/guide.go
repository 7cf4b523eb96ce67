// SPDX-License-Identifier: Apache-2.0

package overview

import "github.com/kubernetes-sigs/blixt/operator/finding"

// Guides explain what Check finds.
var Guides = []finding.Guide{
	{
		Check:   "process",
		Looks:   "the process of each load balancer: whether it runs, and made a change or could have within a minute.",
		Failed:  "the kernel goes on serving what it has, and nothing that changes has an effect: files, backends, health.",
		Warning: "the same, but it was asked for (--keep), or only files are left.",
		Cause:   "it was killed, it crashed, it is stopped (SIGSTOP) or it waits for something.",
		Cure:    "start it again with the flags that it had, `systemctl restart blixt`: it takes over without breaking a flow. `blixt unload --name NAME` removes what is left. Unknown: no load balancer is here, or it has only just begun.",
	},
	{
		Check:  "program",
		Looks:  "whether the program of a load balancer is loaded, and attached to an interface.",
		Failed: "no packet reaches it: nothing is served.",
		Cause:  "the interfaces that it was attached to are gone, or the process uses another --bpffs than doctor.",
		Cure:   "start `blixt run` again; --interface names interfaces. `bpftool net` shows what is attached.",
	},
	{
		Check:   "backends",
		Looks:   "frontends without a backend that serves, and backends that a health check or their own answers have taken out.",
		Failed:  "new connections to a frontend are refused, as no backend is left.",
		Warning: "a backend is out, and tried again by itself; or all fail their check at once, so that the check is not obeyed.",
		Cause:   "the server is down or overloaded, or a check asks for something that it does not answer.",
		Cure:    "`blixt backends -o wide` shows the state of each and why, `blixt policy` what is asked of it. Mend the server, or the check's type, port and path.",
	},
	{
		Check:   "policies",
		Looks:   "whether BlixtPolicies are in force as they are written now.",
		Failed:  "the tables have no room for a policy: what it said before holds and, where nothing did, all new connections are refused.",
		Warning: "a policy in a file that cannot be read refuses all new connections of its target, rather than admit whom it does not mean.",
		Cause:   "lists of sources longer than the tables, or a mistake in a file that has never been good.",
		Cure:    "`blixt check -f DIR` names the mistake with its line. Shorten lists, or build bytecode with larger tables: `blixt bytecode build --help`.",
	},
	{
		Check:   "tables",
		Looks:   "how full the tables of the data plane are.",
		Warning: "a table is nine tenths full: what does not fit is not served, and the table of flows forgets those that are idle for long.",
		Cause:   "more frontends, backends or connections than the tables are made for, or a flood.",
		Cure:    "`blixt top` shows who has the flows. Start with larger tables: `blixt run --flows N`, or `blixt bytecode build --help`.",
	},
	{
		Check:   "packets",
		Looks:   "whether a counter of drops that are the host's fault has grown while doctor looked.",
		Warning: "packets of clients are lost at this moment.",
		Cause:   "that of the reason that is named.",
		Cure:    "`blixt drops` shows the last packets of each reason, with cause and cure.",
	},
	{
		Check:   "files",
		Looks:   "what the process could not read.",
		Failed:  "a file is invalid: what it said when it was valid last goes on serving; one that never was is left out.",
		Warning: "the same, of less weight.",
		Cause:   "a typo, or a file that is not Kubernetes' or Gateway API's.",
		Cure:    "`blixt check -f DIR` says what is wrong with file and line.",
	},
	{
		Check:   "objects",
		Looks:   "mistakes in objects of the files, and conditions of Gateways and routes that are not True.",
		Failed:  "an object is not served, or not as it is written.",
		Warning: "it is served, and something about it is surely not meant.",
		Cause:   "names that lead nowhere, ports that two want, addresses that the host does not have.",
		Cure:    "`blixt check -f DIR` has all of them with file and line.",
	},
	{
		Check:   "drained",
		Looks:   "addresses that were drained by hand, and the file that remembers them.",
		Failed:  "that file cannot be read or written.",
		Warning: "a backend gets no new connections, because somebody said so; after a day doctor asks whether it was forgotten.",
		Cause:   "`blixt drain`, before maintenance.",
		Cure:    "`blixt undrain ADDRESS` when it is over.",
	},
	{
		Check:   "host",
		Looks:   "what else the process has logged and is still so: forwarding and firewall at the moment, addresses that another host has, interfaces.",
		Failed:  "the host itself loses packets or cannot do what is asked for.",
		Warning: "it works with a risk.",
		Cause:   "the message names it.",
		Cure:    "most messages end with the command that mends it.",
	},
	{
		Check: "read",
		Looks: "whether doctor may read what load balancers have left in the kernel and in their run directory. The verdict is unknown if not.",
		Cause: "doctor was not run as root, or with another --run-dir or --bpffs than `blixt run`.",
		Cure:  "`sudo blixt doctor host`, with the same --run-dir and --bpffs.",
	},
	{
		Check: "load-balancers",
		Looks: "all of the above. It is ok if there is nothing of it to tell.",
	},
}
