package cgroup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// settle is how long after the kernel's word the kill itself may take to be counted.
const settle = 2 * time.Second

// WaitOOM waits until more than `after` of the group's processes were killed for want of memory, and returns how many. It costs
// nothing while it waits: the kernel tells. Of a kill because the whole machine is short v1 tells nobody: read OOMKills when the
// guest ends. ErrGone when the group is removed.
//
// On v1 the kernel kills one process, and not what belongs to it: Kill the group then.
func (g *Group) WaitOOM(ctx context.Context, after uint64) (uint64, error) {
	kills, err := g.waitOOM(ctx, after)
	if errors.Is(err, fs.ErrNotExist) {
		err = ErrGone
	}
	if err != nil {
		return kills, fmt.Errorf("watch control group %s for kills: %w", g.ID, err)
	}
	return kills, nil
}

func (g *Group) waitOOM(ctx context.Context, after uint64) (uint64, error) {
	events, err := g.control.oomEvents()
	if err != nil {
		return 0, err
	}
	defer func() { _ = events.Close() }() // only read from
	defer context.AfterFunc(ctx, func() { _ = events.SetReadDeadline(time.Unix(1, 0)) })()
	buffer := make([]byte, 4096) // an event of inotify has up to 272 bytes, one of eventfd 8
	for told := false; ; told = true {
		kills, err := g.countedKills(ctx, after, told)
		if kills > after || err != nil {
			return kills, err
		}
		if _, err := events.Read(buffer); err != nil {
			if ctx.Err() != nil {
				return kills, context.Cause(ctx)
			}
			return kills, err
		}
	}
}

// countedKills reads the count; once told of a kill it gives it a moment, for the kernel tells before it kills.
func (g *Group) countedKills(ctx context.Context, after uint64, told bool) (uint64, error) {
	for deadline := time.Now().Add(settle); ; {
		kills, err := g.control.oomKills()
		if err != nil || kills > after || !told || time.Now().After(deadline) {
			return kills, err
		}
		if err := rest(ctx); err != nil {
			return kills, err
		}
	}
}

// pollable makes a file of the descriptor, whose Read waits without a thread and can be ended.
func pollable(fd int, name string) (*os.File, error) {
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), name), nil
}
