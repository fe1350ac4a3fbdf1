package build

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/moby/sys/user"
)

// accounts finds the numbers of "user" or "user:group", by name or number, in the tree. A number alone is that of the group
// too, a name alone has the group of its account.
func (t *tree) accounts(text string) (uid, gid int, err error) {
	name, group, hasGroup := strings.Cut(text, ":")
	if uid, err = strconv.Atoi(name); err == nil {
		gid = uid
	} else {
		passwd, err := t.resolve("etc/passwd")
		if err != nil {
			return 0, 0, err
		}
		found, err := user.ParsePasswdFileFilter(passwd, func(u user.User) bool { return u.Name == name })
		if err != nil || len(found) == 0 {
			return 0, 0, fmt.Errorf("the image has no user %q", name)
		}
		uid, gid = found[0].Uid, found[0].Gid
	}
	if !hasGroup {
		return uid, gid, nil
	}
	if gid, err = strconv.Atoi(group); err == nil {
		return uid, gid, nil
	}
	groups, err := t.resolve("etc/group")
	if err != nil {
		return 0, 0, err
	}
	found, err := user.ParseGroupFileFilter(groups, func(g user.Group) bool { return g.Name == group })
	if err != nil || len(found) == 0 {
		return 0, 0, fmt.Errorf("the image has no group %q", group)
	}
	return uid, found[0].Gid, nil
}
