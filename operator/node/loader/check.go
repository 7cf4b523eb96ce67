// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/kubernetes-sigs/blixt/bpf"
	"github.com/kubernetes-sigs/blixt/operator/node/hostnet"
)

const (
	// maxRestores is how often within restoresTime a link gets back to the front of its
	// hook. Whoever comes again then wants to be first as much as this program.
	maxRestores  = 3
	restoresTime = 10 * time.Minute
)

// Check looks whether the kernel has what SetInterfaces has attached. Where somebody
// has detached it, it is attached again; where a program of somebody else has come in
// front of it, it gets back to the front, without a gap; where somebody has removed pins,
// they come back. Check returns a message about each, and an error where this fails.
func (l *Loader) Check() (found []string, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var behind []linkKey
	for k, a := range l.links {
		n, failed := revision(k.ifindex, attachType(k.direction))
		if failed != nil || n == a.revision { // the interface goes, or nothing has changed
			err = errors.Join(err, a.yields)
			continue
		}
		at, failed := queryHook(k.ifindex, attachType(k.direction))
		if failed != nil {
			continue
		}
		a.yields = nil
		switch i := at.index(a.id()); {
		case i < 0:
			if l.count(k) <= maxRestores {
				found = append(found, fmt.Sprintf("somebody has detached the program from %s %s: it is attached again", a.to.Name, k.direction))
			}
			err = errors.Join(err, a.drop())
			delete(l.links, k)
		case slices.ContainsFunc(at.programs[:i], foreign):
			behind = append(behind, k)
		default:
			a.revision = at.revision
		}
	}
	moved, failed := l.toFront(behind)
	err = errors.Join(err, failed, l.setInterfaces())
	pinned, failed := l.repin()
	return slices.Concat(found, moved, pinned), errors.Join(err, failed)
}

// count notes that something at a hook is restored, and returns how often that was
// necessary lately.
func (l *Loader) count(k linkKey) int {
	recent := slices.DeleteFunc(l.restored[k], func(t time.Time) bool { return time.Since(t) > restoresTime })
	l.restored[k] = append(recent, time.Now())
	return len(l.restored[k])
}

// attachType returns the type of attachment of a direction.
func attachType(direction string) ebpf.AttachType {
	if direction == "egress" {
		return ebpf.AttachTCXEgress
	}
	return ebpf.AttachTCXIngress
}

// Program is a program that the kernel runs.
type Program struct {
	ID   uint32 `json:"id"`
	Name string `json:"name"`
	// XDP reports that it gets packets before there are sk_buffs.
	XDP bool `json:"xdp,omitempty"`
}

func (p Program) String() string {
	kind := "program"
	if p.XDP {
		kind = "XDP program"
	}
	return fmt.Sprintf("%s %d (%s)", kind, p.ID, cmp.Or(p.Name, "without a name"))
}

// foreign reports whether a program is no load balancer of Blixt: such a one passes on
// what is not its own.
func foreign(p Program) bool { return p.Name != bpf.BlixtProgBlixt }

// hook is what the kernel runs at an interface in one direction, in this order.
type hook struct {
	revision uint64
	programs []Program
	links    []link.ID
}

func queryHook(ifindex int, attach ebpf.AttachType) (h hook, err error) {
	res, err := link.QueryPrograms(link.QueryOptions{Target: ifindex, Attach: attach})
	if err != nil {
		return h, err
	}
	h.revision = res.Revision
	for _, p := range res.Programs {
		id, _ := p.LinkID()
		h.links = append(h.links, id)
		h.programs = append(h.programs, describeProgram(p.ID))
	}
	return h, nil
}

// Before returns the programs that get packets of an interface before a program that is
// attached there, as far as this process may ask.
func Before(i hostnet.Interface, direction string, program uint32) (before []Program) {
	if i.XDP != 0 && direction == "ingress" {
		xdp := describeProgram(ebpf.ProgramID(i.XDP))
		xdp.XDP = true
		before = append(before, xdp)
	}
	at, err := queryHook(i.Index, attachType(direction))
	if err != nil {
		return before
	}
	own := slices.IndexFunc(at.programs, func(p Program) bool { return p.ID == program })
	return append(before, at.programs[:max(own, 0)]...)
}

// describeProgram returns a program with its name, if that can be read.
func describeProgram(id ebpf.ProgramID) Program {
	named := Program{ID: uint32(id)}
	p, err := ebpf.NewProgramFromID(id)
	if err != nil {
		return named
	}
	defer p.Close()
	if info, err := p.Info(); err == nil {
		named.Name = info.Name
	}
	return named
}

// index returns the position of a link, negative: it is not there.
func (h hook) index(id link.ID) int { return slices.Index(h.links, id) }

// revision counts the changes of what the kernel runs at an interface in one
// direction. It costs a fraction of link.QueryPrograms: it is asked each second for
// every link.
func revision(ifindex int, attach ebpf.AttachType) (uint64, error) {
	// The part of union bpf_attr that BPF_PROG_QUERY uses.
	attr := struct {
		ifindex, attachType, queryFlags, attachFlags uint32
		programs                                     uint64
		count, _                                     uint32
		programFlags, links, linkFlags, revision     uint64
	}{ifindex: uint32(ifindex), attachType: uint32(attach)}
	_, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_QUERY, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
	if errno != 0 {
		return 0, errno
	}
	return attr.revision, nil
}

// toFront moves links to the front, and returns a message for each.
func (l *Loader) toFront(keys []linkKey) (found []string, err error) {
	if len(keys) == 0 {
		return nil, nil
	}
	twin, err := l.twin()
	if err != nil {
		return nil, err
	}
	defer twin.Close()
	for _, k := range keys {
		a := l.links[k]
		at, failed := queryHook(k.ifindex, attachType(k.direction))
		if failed != nil {
			continue // the interface goes
		}
		before := at.programs[:max(at.index(a.id()), 0)]
		first := slices.IndexFunc(before, foreign)
		if first < 0 {
			continue
		}
		where := fmt.Sprintf("%v has come before Blixt at %s %s", before[first], a.to.Name, k.direction)
		if l.count(k) > maxRestores {
			a.revision = at.revision
			a.yields = errors.New(where + ", and does so each time: what it does not pass on is not served; attach it behind Blixt")
			err = errors.Join(err, a.yields)
			continue
		}
		if failed := l.move(k, twin); failed != nil {
			err = errors.Join(err, &AttachError{Interface: a.to.Name, Direction: k.direction, Err: failed})
			continue
		}
		found = append(found, where+", and what it does not pass on would not be served: Blixt is first again")
	}
	return found, err
}

// twin returns a second copy of the program, over the same maps. A hook takes a program
// only once.
func (l *Loader) twin() (*ebpf.Program, error) {
	spec, err := l.options.spec()
	if err != nil {
		return nil, err
	}
	coll, err := newCollection(spec, l.maps)
	if err != nil {
		return nil, err
	}
	defer coll.Close()
	return coll.DetachProgram(bpf.BlixtProgBlixt), nil
}

// move moves a link to the front. The twin serves while it is on its way: without a
// program, packets of connections would reach the host, which resets them.
func (l *Loader) move(k linkKey, twin *ebpf.Program) error {
	a := l.links[k]
	ln, err := link.AttachTCX(link.TCXOptions{Interface: k.ifindex, Program: twin, Attach: attachType(k.direction), Anchor: link.Head()})
	if err != nil {
		return err
	}
	next := &attached{link: ln, path: a.path, to: a.to, adopted: a.adopted}
	// The pin is there all the time, for who reads the status, and in case of a kill.
	temporary := filepath.Join(filepath.Dir(a.path), "next-"+k.String())
	if err := errors.Join(next.pinAs(temporary), os.Rename(temporary, a.path)); err != nil {
		return errors.Join(err, ln.Unpin(), ln.Close())
	}
	l.links[k] = next
	return errors.Join(a.detach(), a.close(), ln.Update(l.program))
}

// pin pins the link, so that it outlives this process.
func (a *attached) pin() error { return a.pinAs(a.path) }

func (a *attached) pinAs(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("make pin directory: %w", err)
	}
	if err := a.link.Pin(path); err != nil {
		return fmt.Errorf("pin link: %w", err)
	}
	return nil
}
