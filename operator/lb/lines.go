// SPDX-License-Identifier: Apache-2.0

package lb

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/kubernetes-sigs/blixt/operator/phrase"
)

// Line is a change in words, and the same in fields. It is of one Service in all frontends
// that it has changed in alike, or of frontends that came or went.
type Line struct {
	Text string `json:"text"`
	// Service is that of the backends; "": it is not known, or the line is of frontends.
	Service string `json:"service,omitempty"`
	Gateway string `json:"gateway,omitempty"` // of frontends that came or went
	// Frontends is how many there are, Examples some of them.
	Frontends int      `json:"frontends"`
	Examples  []string `json:"examples,omitempty"`
	// Added and Removed are backends of the Service, or frontends if Gateway is set. Of
	// many there are the first.
	Added   []string `json:"added,omitempty"`
	Removed []string `json:"removed,omitempty"`
	// States are backends with what they are now: serving, draining, not-serving, drained
	// or undrained by hand.
	States []string `json:"states,omitempty"`
	// Weight is set if that of the Service has changed.
	Weight *WeightChange `json:"weight,omitempty"`
}

// Lines returns the changes in at most so many lines, with at most so many names in each
// list of one; 0: all. What comes of a change of backends of a Service is one line for all
// frontends. The last one says how many are left out.
func (c *Changes) Lines(most, names int) []Line {
	l := lines{names: names, byText: map[string]*Line{}}
	l.frontends("-", c.Removed, func(line *Line) *[]string { return &line.Removed })
	l.frontends("+", c.Added, func(line *Line) *[]string { return &line.Added })
	for i := range c.Changed {
		l.change(&c.Changed[i])
	}
	for _, line := range l.all {
		l.finish(line)
	}
	all := make([]Line, 0, len(l.all))
	for _, line := range l.all {
		all = append(all, *line)
	}
	for i := range c.Sources {
		all = append(all, c.Sources[i].line(names))
	}
	if most > 0 && len(all) > most {
		more, frontends := len(all)-most+1, 0
		for _, line := range all[most-1:] {
			frontends += line.Frontends
		}
		text := phrase.Count(more, "change") + " more"
		if frontends > 0 {
			text += ", of " + phrase.Count(frontends, "frontend")
		}
		all = append(all[:most-1], Line{Text: text, Frontends: frontends})
	}
	return all
}

// lines collects lines.
type lines struct {
	names  int
	all    []*Line
	byText map[string]*Line
}

// maxLineExamples is how many frontends a line names.
const maxLineExamples = 5

// line returns the line of a text, to which a frontend is added.
func (l *lines) line(text string, key Key) (line *Line, isNew bool) {
	line = l.byText[text]
	if line == nil {
		line, isNew = &Line{Text: text}, true
		l.byText[text] = line
		l.all = append(l.all, line)
	}
	line.Frontends++
	if len(line.Examples) < maxLineExamples {
		line.Examples = append(line.Examples, key.String())
	}
	return line, isNew
}

// frontends adds those that came or went, by their Gateways.
func (l *lines) frontends(sign string, all []*Frontend, list func(*Line) *[]string) {
	for _, f := range all {
		line, _ := l.line(sign+"frontends of "+f.Gateway, f.Key())
		line.Gateway = f.Gateway
		to := list(line)
		*to = append(*to, f.Key().String())
	}
}

// change adds the lines of a frontend that differs.
func (l *lines) change(c *FrontendChange) {
	of := map[string]*Line{} // by Service
	service := func(name string) *Line {
		if of[name] == nil {
			of[name] = &Line{Service: name}
		}
		return of[name]
	}
	for _, b := range c.Added {
		line := service(b.Service)
		line.Added = append(line.Added, b.Addr.String()+b.note())
	}
	for _, b := range c.Removed {
		line := service(b.Service)
		line.Removed = append(line.Removed, b.Addr.String())
	}
	for _, b := range c.Changed {
		line := service(b.Is.Service)
		if text := b.text(); text != "" {
			line.States = append(line.States, b.Is.Addr.String()+" "+text)
		}
	}
	for _, w := range c.Weights {
		if w.Service != "" || w.Was+w.Is > 0 {
			service(w.Service).Weight = &w
		}
	}
	if len(of) == 0 {
		of[""] = &Line{}
	}
	for _, name := range slices.Sorted(maps.Keys(of)) {
		one := of[name]
		text := one.words(l.names)
		if text == "" {
			text = c.other()
		}
		line, isNew := l.line(text, c.Is.Key())
		if isNew {
			line.Service, line.Added, line.Removed, line.States, line.Weight = one.Service, one.Added, one.Removed, one.States, one.Weight
		}
	}
}

// note says what a new backend is if it gets no flows.
func (b *Backend) note() string {
	if b.Drained != nil {
		return " (drained by " + b.Drained.By + ")"
	}
	if s := b.State(); s != StateServing {
		return " (" + s + ")"
	}
	return ""
}

// text says what a backend is now.
func (c BackendChange) text() string {
	was, is := c.Was, c.Is
	switch {
	case was.Drained == nil && is.Drained != nil:
		return "drained by " + is.Drained.By
	case was.Drained != nil && is.Drained == nil:
		return "undrained, " + is.State()
	case was.State() != is.State() && is.State() == StateEjected:
		return "ejected: " + is.Ejected.Why
	case was.State() != is.State():
		return is.State()
	case was.Local != is.Local && is.Local:
		return "on this host"
	case was.Local != is.Local:
		return "on another host"
	case was.Service != is.Service:
		return "was of " + cmp.Or(was.Service, "no Service")
	case was.ThroughStack != is.ThroughStack || was.Protected != is.Protected:
		return "reached another way"
	}
	return ""
}

// other says what differs if neither backends nor weights do.
func (c *FrontendChange) other() string {
	switch was, is := c.Was, c.Is; {
	case was.Route != is.Route:
		return fmt.Sprintf("route %s instead of %s", cmp.Or(is.Route, "none"), cmp.Or(was.Route, "none"))
	case was.Gateway != is.Gateway || was.Listener != is.Listener:
		return fmt.Sprintf("listener %s of %s instead of %s of %s", is.Listener, is.Gateway, was.Listener, was.Gateway)
	case was.IdleTimeout != is.IdleTimeout:
		return fmt.Sprintf("idle timeout %s instead of %s", is.IdleTimeout, was.IdleTimeout)
	}
	return cmp.Or(settingsWords(&c.Was.Settings, &c.Is.Settings), "other settings")
}

// words returns what has changed in a Service; "": nothing that it knows.
func (l *Line) words(names int) string {
	var parts []string
	list := func(sign string, all []string) {
		for i, name := range all {
			if names > 0 && i == names && len(all) > names+1 {
				parts = append(parts, fmt.Sprintf("%sand %s more", sign, phrase.Number(len(all)-names)))
				return
			}
			parts = append(parts, sign+name)
		}
	}
	list("+", l.Added)
	list("-", l.Removed)
	text := strings.Join(parts, " ")
	parts = nil
	list("", l.States)
	if len(parts) > 0 {
		text = strings.TrimPrefix(text+", "+strings.Join(parts, ", "), ", ")
	}
	if text != "" && l.Service != "" {
		if len(parts) > 0 {
			text += ","
		}
		text += " of " + l.Service
	}
	if w := l.Weight; w != nil {
		what := "weight"
		switch {
		case w.Service == "":
			what = "weight of refused connections"
		case text == "":
			what = "weight of " + w.Service
		}
		text = strings.TrimPrefix(fmt.Sprintf("%s, %s %g instead of %g", text, what, w.Is, w.Was), ", ")
	}
	return text
}

// finish completes the text when all frontends of the line are known.
func (l *lines) finish(line *Line) {
	if line.Gateway != "" {
		sign, all := "+", line.Added
		if len(line.Removed) > 0 {
			sign, all = "-", line.Removed
		}
		if shown := l.names; shown > 0 && len(all) > shown+1 {
			line.Text = fmt.Sprintf("%s%s and %s more frontends of %s", sign, strings.Join(all[:shown], " "+sign), phrase.Number(len(all)-shown), line.Gateway)
		} else {
			line.Text = fmt.Sprintf("%s%s of %s", sign, strings.Join(all, " "+sign), line.Gateway)
		}
	} else if line.Frontends == 1 {
		line.Text += " at " + line.Examples[0]
	} else {
		line.Text += fmt.Sprintf(" at %s and %s", line.Examples[0], phrase.Count(line.Frontends-1, "other frontend"))
	}
	if l.names > 0 { // fields are bounded, too
		for _, list := range []*[]string{&line.Added, &line.Removed, &line.States} {
			*list = (*list)[:min(len(*list), l.names)]
		}
	}
}
