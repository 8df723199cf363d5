// What the boards are validated against: Grafana's own types of a board, and of each kind of panel that is on one.

import type * as bargauge from './node_modules/@grafana/schema/dist/types/raw/composable/bargauge/panelcfg/x/types.gen';
import type * as heatmap from './node_modules/@grafana/schema/dist/types/raw/composable/heatmap/panelcfg/x/types.gen';
import type * as logs from './node_modules/@grafana/schema/dist/types/raw/composable/logs/panelcfg/x/types.gen';
import type * as stat from './node_modules/@grafana/schema/dist/types/raw/composable/stat/panelcfg/x/types.gen';
import type * as table from './node_modules/@grafana/schema/dist/types/raw/composable/table/panelcfg/x/types.gen';
import type * as timeseries from './node_modules/@grafana/schema/dist/types/raw/composable/timeseries/panelcfg/x/types.gen';
import type * as dashboard from './node_modules/@grafana/schema/dist/types/raw/dashboard/x/types.gen';

export interface board extends dashboard.Dashboard {}
export interface panel extends dashboard.Panel {}
export interface row extends dashboard.RowPanel {}

export interface bargauge_options extends bargauge.Options {}
export interface heatmap_options extends heatmap.Options {}
export interface heatmap_custom extends heatmap.FieldConfig {}
export interface logs_options extends logs.Options {}
export interface stat_options extends stat.Options {}
export interface table_options extends table.Options {}
export interface table_custom extends table.FieldConfig {}
export interface timeseries_options extends timeseries.Options {}
export interface timeseries_custom extends timeseries.FieldConfig {}
