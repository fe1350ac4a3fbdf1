# A minimal Debian of its packages: laid out, configured as their own scripts do, and without what the slim images leave out.
FROM scratch AS made
ADD root.tar /
ENV DEBIAN_FRONTEND=noninteractive PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
RUN --mount=type=bind,source=debs,target=/debs <<EOF
set -e
ln -sf mawk /usr/bin/awk
cp /usr/share/base-passwd/passwd.master /etc/passwd
cp /usr/share/base-passwd/group.master /etc/group
touch /var/lib/dpkg/status /var/lib/dpkg/available
mkdir -p /etc/dpkg/dpkg.cfg.d
printf 'path-exclude=/usr/share/%s/*\n' doc man locale info groff linda lintian >/etc/dpkg/dpkg.cfg.d/docker
printf 'path-include=/usr/share/doc/*/copyright\n' >>/etc/dpkg/dpkg.cfg.d/docker
dpkg --force-depends --force-confnew --install /debs/*.deb
dpkg --audit
find /usr/share/doc -depth -type f ! -name copyright -delete
rm -rf /usr/share/man /usr/share/locale /usr/share/info /var/cache/apt/archives/*.deb /var/log/dpkg.log /tmp/*
EOF
FROM scratch
COPY --from=made / /
ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
CMD ["bash"]
